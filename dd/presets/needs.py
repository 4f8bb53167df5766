"""What an experiment will want before its last stage ends, and how to get what is not there.

`dd-cli experiment add` prints the list, the stage `teacher` refuses to begin without it: a package or a reference that
is missing must not show after days. Only names and sizes of files are looked at; nothing is loaded or fetched.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from dd.checkpoints import hub, zoo
from dd.checkpoints.assets import ASSETS
from dd.config import Experiment
from dd.errors import DDError, install
from dd.metrics.protocols import Protocol, protocol
from dd.system.device import card_memory, cuda_problem
from dd.system.launch import processes

GB = 1e9
NETWORKS = {"inception-tf": "inception", "inception-pytorch": "inception"}  # extractor -> name in the zoo
RAW_WORDS = 2  # bytes of a token in a shard; what the noise is made of is never stored


@dataclass(frozen=True)
class Need:
    """One thing. here: whether it is there, or will be fetched by the stage `teacher`. how: to get it.

    fetch: its name for `dd-cli zoo fetch`, if that gets it.
    """

    what: str
    here: bool
    how: str = ""
    fetch: str = ""


def needs(experiment: Experiment, root: Path) -> list[Need]:
    """Everything that the stages of an experiment will want, in the order in which they do."""
    return [
        *_device(experiment),
        *_memory(experiment),
        *_processes(experiment),
        *_weights(experiment),
        *_captions(experiment, root),
        *_perceptual(experiment),
        *_metrics(experiment, root),
        *_disk(experiment, root),
    ]


def missing(experiment: Experiment, root: Path) -> list[Need]:
    """Those that are not there."""
    return [need for need in needs(experiment, root) if not need.here]


def demand(experiment: Experiment, root: Path, name: str) -> None:
    """Raise DDError that names everything that is not there, and how to get it."""
    if lacking := missing(experiment, root):
        listed = "; ".join(f"{need.what}: {need.how}" for need in lacking)
        raise DDError(f"{name}: its stages will need what is not here: {listed}")


# --------------------------------------------------------------------------------------------------------- one by one


def _device(experiment: Experiment) -> list[Need]:
    if experiment.device != "cuda":
        return []
    problem = cuda_problem()
    return [Need("a CUDA device", problem is None, f"{problem}; or set device: auto" if problem else "")]


def _memory(experiment: Experiment) -> list[Need]:
    """Of this machine's card, for one pair of a training step; nothing where there is no card or no training."""
    settings = experiment.distill
    size = card_memory() if experiment.device == "cuda" and settings is not None else None
    if size is None or settings is None:
        return []
    from dd.distillation.memory import rows_for, step_memory
    from dd.presets.sizes import teacher_configs

    memory = step_memory(*teacher_configs(experiment), settings)
    try:
        rows = rows_for(memory, size, settings.pairs_per_update)
    except DDError as error:
        return [Need(f"a card of more than {size / GB:.0f} GB", False, str(error).removeprefix("batch: auto: "))]
    if settings.batch == "auto" or settings.batch <= rows:
        return [Need(f"{memory.total(rows) / GB:.0f} of the card's {size / GB:.0f} GB", True)]
    how = f"set distill.batch: auto and global_batch: {settings.pairs_per_update}, or batch: {rows}"
    return [Need(f"memory for {settings.batch} pairs at once (the card's {size / GB:.0f} GB hold {rows})", False, how)]


def _processes(experiment: Experiment) -> list[Need]:
    """Whether the pairs of an update divide by the processes that $DD_LAUNCH asks for."""
    settings, world = experiment.distill, processes()
    if settings is None or world < 2:
        return []
    pairs = settings.pairs_per_update
    near = ", ".join(str(n) for n in range(1, 2 * world) if not pairs % n)
    how = f"start {near}, or change distill.global_batch"
    return [Need(f"{pairs} pairs of an update that divide by {world} processes", not pairs % world, how)]


def _weights(experiment: Experiment) -> list[Need]:
    if experiment.teacher.random_blocks:
        return []
    entry = zoo.entry(experiment.teacher.name, "teacher")
    found = [] if experiment.teacher.path else [_entry(entry)]
    if entry.tokenizer and not experiment.teacher.path:
        found.append(_entry(zoo.entry(entry.tokenizer, "tokenizer")))
    if experiment.student:
        found.append(_entry(zoo.entry(experiment.student, "student")))
    return found


def _entry(entry: zoo.Entry) -> Need:
    """An entry's file; the hub's can also be fetched when they are wanted, where there is a network."""
    file = entry.file
    if entry.shipped:
        return Need(f"{entry.kind} {entry.name}", zoo.is_here(entry), "git checkout -- zoo", entry.name)
    offline = os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}
    place = hub.local_path(file.hub_file())
    how = f"dd-cli zoo fetch {entry.name}, or place {file.repo}/{file.path} at {place}"
    here = zoo.is_here(entry)
    note = "" if here else f" ({file.size_text()}, fetched by the stage teacher)"
    return Need(f"{entry.kind} {entry.name}{note}", here or not offline, how, entry.name)


def _captions(experiment: Experiment, root: Path) -> list[Need]:
    if experiment.teacher.captions is None:
        return []
    files = experiment.teacher.captions
    found = [
        Need(
            f"{split} captions {file}",
            (root / file).is_file(),
            "check the path, or write them there (.txt, .csv or .parquet)",
        )
        for split, file in (("train", files.train), ("test", files.test))
    ]
    if not experiment.teacher.random_blocks:
        encoder = zoo.entry(experiment.teacher.name, "teacher").text_encoder
        installed = importlib.util.find_spec("transformers") is not None
        found.append(Need(f"text encoder {encoder}", installed, install("text")))
    return found


def _perceptual(experiment: Experiment) -> list[Need]:
    settings = experiment.distill
    if settings is None or not settings.losses.perceptual or settings.losses.perceptual_network != "lpips":
        return []
    installed = importlib.util.find_spec("lpips") is not None
    found = [Need("package lpips", installed, install("perceptual"))]
    if not experiment.teacher.random_blocks:
        found.append(_asset("lpips-vgg"))
    return found


def _asset(name: str) -> Need:
    asset = ASSETS[name]
    return Need(f"{name} ({asset.megabytes} MB)", asset.here(), asset.how(), name)


def _metrics(experiment: Experiment, root: Path) -> list[Need]:
    settings = experiment.evaluate
    chosen = protocol(settings.protocol)
    found = []
    if chosen.extractor not in settings.allow_missing:
        found.append(_network(chosen))
    if "reference" not in settings.allow_missing:
        path = chosen.reference_path(settings.reference)
        name = {"adm": "adm-reference", "dd": "dd-fid-statistic"}.get(chosen.name, "")
        how = f"dd-cli zoo fetch {name}" if name and not settings.reference else chosen.how_to_get
        if settings.reference:
            how = f"dd-cli reference build {settings.protocol} FOLDER --out {settings.reference}"
        found.append(Need(f"reference {_below(path, root)}", path.is_file(), how, "" if settings.reference else name))
    return found


def _network(chosen: Protocol) -> Need:
    if chosen.extractor in NETWORKS:
        return _asset(NETWORKS[chosen.extractor])
    path = chosen.extractor_path()
    return Need(f"extractor of {chosen.name}", path is not None and path.is_file(), chosen.how_to_get)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _disk(experiment: Experiment, root: Path) -> list[Need]:
    wanted = disk_bytes(experiment)
    free = shutil.disk_usage(root).free
    how = f"free {(wanted - free) / GB:.0f} GB more (now {free / GB:.0f} GB), or clone the project to a larger disk"
    return [Need(f"{wanted / GB:.1f} GB of disk", free >= wanted, how)]


def disk_bytes(experiment: Experiment) -> int:
    """Bytes that the stages and DVC's cache hold when all is done, checkpoints while training included."""
    return sum(disk_parts(experiment).values())


def disk_parts(experiment: Experiment) -> dict[str, int]:
    """The same, stage by stage, from the sizes of the networks in float32.

    The teacher twice (DVC's cache may copy); shards twice, and the states of captions, should each pair have its own;
    a checkpoint (student, average, two moments) twice while a new one is written, student and baseline twice.
    """
    from dd.presets.sizes import sizes

    size = sizes(experiment)
    teacher, student = 4 * size.teacher_parameters, 4 * size.student_parameters
    if experiment.distill is None:
        return {"teacher": 2 * teacher, "distill": 2 * student}
    assert experiment.trajectories is not None
    pairs = experiment.trajectories.pairs + experiment.trajectories.held_out
    return {
        "teacher": 2 * teacher,
        "trajectories": 2 * pairs * size.tokens * RAW_WORDS + pairs * size.caption_bytes,
        "distill": 2 * 4 * student + 2 * 2 * student,
    }
