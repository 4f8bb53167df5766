"""A student from an experiment's pairs, with the set predictor behind the baselines; or a released one, fetched.

Work goes on in work/<fingerprint>/ after a kill, and is published as a whole.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from filelock import FileLock, Timeout

from dd import __version__, config
from dd.checkpoints import zoo
from dd.checkpoints.students import load_student, materialise_student, save_student_dir
from dd.checkpoints.teachers import RANDOM_BLOCKS, load_teacher_dir, read_info
from dd.config import DistillConfig, Experiment, LossConfig, SecondPhaseConfig
from dd.distillation.batches import ShardPairs
from dd.distillation.frechet import PictureFeatures, shifted
from dd.distillation.losses import ImageDistance
from dd.distillation.memory import GB, rows_for, step_memory
from dd.distillation.objective import check_timesteps, second_filters
from dd.distillation.progressive import Source, start_from
from dd.distillation.soft_targets import SoftTargets
from dd.distillation.task import Curves, Task
from dd.distillation.training import Outcome, division, this_process, train
from dd.distillation.validation import Probe, open_probe
from dd.errors import DDError, install
from dd.metrics.classifier import SmallClassifier
from dd.metrics.perceptual import open_lpips
from dd.models.base import Filters, Groups, Student, Teacher
from dd.models.registry import build_student, build_teacher, student_config
from dd.system.device import choose_device, device_name
from dd.system.files import publish
from dd.system.git import demand_commit
from dd.system.launch import by_hand
from dd.system.progress import keep_rates, progress
from dd.text.captions import CaptionStates, open_captions, plan_captions
from dd.trajectories.plan import MANIFEST
from dd.trajectories.reader import Rows, Shards, open_shards
from dd.trajectories.trajectory import sample

log = logging.getLogger(__name__)

# What the soft targets of all pairs may take; beyond it they are computed in every step. Pairs of one batch of them.
KEPT_BYTES, KEEP_BATCH = 2**30, 128
# Pairs at once where `batch: auto` meets no accelerator.
ROWS_ON_CPU = 64


@dataclass(frozen=True)
class Inputs:
    """What an experiment is distilled from: checked, nothing of it loaded."""

    name: str
    experiment: Experiment
    settings: DistillConfig
    teacher_dir: Path
    shards: Shards


def check_inputs(name: str, experiment: Experiment, settings: DistillConfig, root: Path) -> Inputs:
    """Open the shards and compare them and the settings with the teacher. Raises DDError."""
    teacher_dir = root / "data" / name / "teacher"
    info = read_info(teacher_dir)
    empty = build_teacher(info.family, info.tokenizer_config, info.transformer_config, "meta")
    check_settings(settings, empty.groups)
    if settings.source is not None and (imitated := zoo.entry(settings.source, "student").teacher) != info.name:
        raise DDError(
            f"distill.source: {settings.source} imitates {imitated}, the experiment's teacher is {info.name}: "
            "name a student of it"
        )
    shards = open_shards(root / "data" / name / "trajectories", expect_teacher=info.sha256)
    chosen = experiment.teacher
    filters = Filters.of(chosen.model_dump())
    if shards.plan.filters != filters:
        raise DDError(
            f"{shards.url} was drawn with {shards.plan.filters}, params.yaml says {filters}: "
            "run the stage 'trajectories' again"
        )
    return Inputs(name, experiment, settings, teacher_dir, shards)


def check_settings(settings: DistillConfig, groups: Groups) -> None:
    """Raise DDError for settings that this teacher or this installation cannot give."""
    check_timesteps((*settings.timesteps, *settings.baseline.timesteps), len(groups))
    for tracker in settings.trackers:
        if tracker != "dvclive" and importlib.util.find_spec(tracker) is None:
            raise DDError(
                f"distill.trackers: {tracker} is not installed: pip install {tracker}, or leave it out of the list"
            )
    if not (settings.losses.perceptual or wants_frechet(settings)):
        return
    if settings.losses.perceptual_network != "lpips":
        zoo.entry(settings.losses.perceptual_network, "extractor")
    elif importlib.util.find_spec("lpips") is None:
        raise DDError(
            f"losses.perceptual: lpips is not installed; {install('perceptual')}, name an extractor of the zoo as "
            "losses.perceptual_network, or set perceptual: 0"
        )


def wants_frechet(settings: DistillConfig) -> bool:
    """Does a second phase compare pictures together?"""
    return bool(settings.second.steps and settings.second.frechet)


def with_rows(inputs: Inputs) -> Inputs:
    """The inputs with `batch: auto` replaced by what the smallest of the processes' accelerators can take."""
    settings, process = inputs.settings, this_process()
    if settings.batch != "auto":
        return inputs
    share = -(-settings.pairs_per_update // process.num_processes)
    if process.device.type == "cpu":
        rows = min(share, ROWS_ON_CPU)
    else:
        info = read_info(inputs.teacher_dir)
        memory = step_memory(info.family, info.tokenizer_config, info.transformer_config, settings)
        have = gather_object([torch.cuda.get_device_properties(process.device).total_memory])
        rows = rows_for(memory, min(have), share)
        log.info("batch: auto: %d pairs at once, %.0f GB by estimate", rows, memory.total(rows) / GB)
    return replace(inputs, settings=settings.model_copy(update={"batch": rows}))


def open_task(inputs: Inputs, folder: Path) -> tuple[Task, dict[str, Any]]:
    """Load everything that training needs; with the student's configuration."""
    process, settings = this_process(), inputs.settings
    device = process.device
    teacher = load_teacher_dir(inputs.teacher_dir, device)
    rank, world = process.process_index, process.num_processes
    pairs = ShardPairs(inputs.shards, division(settings).rows, settings.seed, device, rank, world, lookup(inputs))
    source = open_source(inputs, teacher, pairs) if settings.source else None
    task = Task(
        teacher=teacher,
        pairs=pairs,
        held_out=pairs.pairs(held_out(inputs.shards)),
        folder=folder,
        distance=image_distance(settings, device, RANDOM_BLOCKS in read_info(inputs.teacher_dir).origin),
        picture_features=picture_features(inputs, teacher, pairs),
        probe=probe(inputs, teacher),
        filters=inputs.shards.plan.filters,
        solver=inputs.shards.plan.solver,
        follow=None if source is None else source.follow,
        watched=config.project_root() / "work" / "trackers" / inputs.name,
    )
    return task, student_config(teacher, **asdict(settings.student))


def open_source(inputs: Inputs, teacher: Teacher, pairs: ShardPairs) -> Source:
    """The student that is distilled further; what it gives for the pairs is kept where it fits into KEPT_BYTES."""
    settings, device = inputs.settings, teacher.codebook.device
    assert settings.source is not None
    source = Source(load_student(settings.source, device), teacher.codebook, settings.precision)
    rows = inputs.shards.rows("train")
    if (
        rows * len(settings.timesteps) * SoftTargets.bytes_per_token(len(teacher.codebook)) * teacher.groups.length
        > KEPT_BYTES
    ):
        return source
    found = inputs.shards.to_tensors("train")
    starts = progress(range(0, rows, KEEP_BATCH), unit="batches", label="soft targets")
    source.keep((pairs.pairs(found.take(slice(at, at + KEEP_BATCH))) for at in starts), settings.timesteps)
    return source


def lookup(inputs: Inputs) -> CaptionStates | None:
    """The encoded captions that the pairs' conditions count; None for classes. Raises DDError if they changed since."""
    plan = inputs.shards.plan
    if not plan.captions_sha256:
        return None
    if plan_captions(inputs.teacher_dir, "train", plan.conditions) != (plan.conditions, plan.captions_sha256):
        raise DDError(f"{inputs.shards.url} was drawn from other captions: run the stage 'trajectories' again")
    return open_captions(inputs.teacher_dir, "train", config.project_root() / "work" / "captions", plan.conditions)


def probe(inputs: Inputs, teacher: Teacher) -> Probe | None:
    """The distance that `distill.probe` asks for, opened; None where it asks for none."""
    settings = inputs.settings
    if not settings.probe.every:
        return None
    wanted, classes = settings.probe, len(read_info(inputs.teacher_dir).classes)
    steps = settings.steps + settings.second.steps
    return open_probe(teacher, classes, wanted.protocol, wanted.images, wanted.every, steps, settings.split)


def held_out(shards: Shards) -> Rows:
    """The rows for validation; none where trajectories.held_out is 0."""
    if shards.rows("held_out"):
        return shards.held_out()
    return shards.to_tensors("train", 1).take(slice(0))


def image_distance(settings: DistillConfig, device: torch.device, rehearsal: bool = False) -> ImageDistance | None:
    """The perceptual network that the settings name (`check_settings`): LPIPS, or an extractor of the zoo."""
    if not settings.losses.perceptual:
        return None
    wanted = settings.losses.perceptual_network
    if wanted != "lpips":
        return extractor(wanted, device).perceptual_distance
    network = open_lpips(device, random=rehearsal)
    return lambda images, targets: network(images, targets).flatten()


def extractor(name: str, device: torch.device) -> SmallClassifier:
    """A feature network of the zoo."""
    return SmallClassifier.load(zoo.local(zoo.entry(name, "extractor").file)).to(device)


@torch.no_grad()
def picture_features(inputs: Inputs, teacher: Teacher, pairs: ShardPairs) -> PictureFeatures | None:
    """What `second.frechet` compares with: features of the teacher's pictures.

    They are decoded from the first pairs, or drawn for the same conditions where the phase has a guidance of its own.
    """
    settings, device = inputs.settings, teacher.codebook.device
    if not wants_frechet(settings):
        return None
    network = extractor(settings.losses.perceptual_network, device)
    rows, filters = inputs.shards.to_tensors("train", settings.second.pictures), inputs.shards.plan.filters
    other = second_filters(filters, settings.second)
    generator = torch.Generator(device).manual_seed(settings.seed)
    wanted = []
    for start in progress(range(0, len(rows), 256), unit="batches", label="the teacher's pictures"):
        part = rows.take(slice(start, start + 256))
        tokens = part.tokens.to(device)
        if other != filters:
            tokens = sample(teacher, pairs.conditions(part), other, generator)
        wanted.append(network(shifted(teacher.decode(teacher.codebook[tokens]), start)).features)
    return PictureFeatures(lambda images: network(images).features, torch.cat(wanted))


def fit(task: Task, sizes: dict[str, Any], settings: DistillConfig, family: str, steps: int) -> Outcome:
    """Build, initialise and train one student."""
    torch.manual_seed(settings.seed)
    student: Student = build_student(family, sizes)
    if settings.initialise == "source":
        assert settings.source is not None
        start_from(student, load_student(settings.source))
    elif settings.initialise == "teacher":
        student.initialise_from(task.teacher)
    else:
        student.init_weights()  # type: ignore[operator]
    return train(student, task, settings, steps)


def write_curves(folder: Path, curves: Curves) -> None:
    """DVCLive's files (one TSV per curve), written anew, so that a resumed run has no step twice."""
    from dvclive import Live

    steps = sorted({step for points in curves.values() for step, _ in points})
    values = {name: dict(points) for name, points in curves.items()}
    with Live(str(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False) as live:
        for step in steps:
            live.step = step
            for name, points in values.items():
                if step in points:
                    live.log_metric(name, points[step])


def distill(name: str, experiment: Experiment, settings: DistillConfig, root: Path) -> str:
    """Train, save and publish. Returns what was done; nothing in processes beside the main one."""
    inputs = check_inputs(name, experiment, settings, root)
    process = this_process()
    kept = {"device": device_name(str(process.device)), "processes": process.num_processes}
    keep_rates(root / "work" / "rates" / name, **kept)
    manifest = root / "data" / name / "trajectories" / MANIFEST
    source = zoo.entry(settings.source, "student").file.sha256 if settings.source else None
    code = [file for file in (root / "data" / name / "code" / "distill.json",) if file.is_file()]
    folder = (
        root / "work" / config.fingerprint("distill", __version__, name, settings.recipe(), manifest, source, *code)
    )
    folder.mkdir(parents=True, exist_ok=True)
    if not this_process().is_main_process:
        run(inputs, folder)
        return ""
    (folder / f"{name}.owner").touch()
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DDError(f"another process distills this (it holds {folder / 'lock'}): wait until it ends") from None
    try:
        outcome = run(inputs, folder)
        publish(complete(folder / "out"), root / "models" / name)
    finally:
        lock.release()
    if by_hand():
        log.info("%s is kept: dvc repro, which removes what it did not make, takes the student from there", folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # its checkpoints would hide later changes of the code
    accuracy = {k.removeprefix("accuracy/"): round(v[-1][1], 3) for k, v in outcome.curves.items() if "accuracy" in k}
    return f"wrote models/{name}: {outcome.steps} steps, held-out token accuracy {json.dumps(accuracy)}"


def run(inputs: Inputs, folder: Path) -> Outcome:
    """Train what the settings ask for; the main process leaves it in folder/out."""
    inputs, out, main = with_rows(inputs), folder / "out", this_process().is_main_process
    settings = inputs.settings
    task, sizes = open_task(inputs, folder)
    task = with_curves(task, folder / "curves")
    outcome = fit(task, sizes, settings, inputs.experiment.family, settings.steps)
    if main:
        about = {
            "steps": outcome.steps,
            "hours": round(outcome.seconds / 3600, 3),
            "processes": this_process().num_processes,
            "settings": settings.model_dump(mode="json"),
        }
        if settings.source:
            about["source_sha256"] = zoo.entry(settings.source, "student").file.sha256
        shutil.rmtree(out, ignore_errors=True)  # of an earlier run, killed while it wrote
        save_student_dir(out, outcome.student, sizes, inputs.teacher_dir, about)
        write_curves(out / "curves", outcome.curves)
    if settings.baseline.steps:
        predictor, plain = baseline(task, sizes, inputs)
        if main:
            about = {"steps": predictor.steps, "noise": False}
            save_student_dir(out / "baseline", predictor.student, plain, inputs.teacher_dir, about)
    return outcome


def with_curves(task: Task, folder: Path) -> Task:
    """The task, writing its curves while it runs."""
    return replace(task, on_curves=lambda curves: write_curves(folder, curves))


def baseline(task: Task, sizes: dict[str, Any], inputs: Inputs) -> tuple[Outcome, dict[str, Any]]:
    """The set predictor of onestep* and skip-n: the authors' student design, trained with its noise set to zero.

    Both samplers read its logits only, so it learns by cross-entropy alone.
    """
    settings = inputs.settings
    plain = {**sizes, "noise_logits": False, "flow_steps": 0, "refinements": 0}
    only = {
        "timesteps": settings.baseline.timesteps,
        "losses": LossConfig(),
        "loss_split": False,
        "second": SecondPhaseConfig(),
        "initialise": "random" if settings.initialise == "random" else "teacher",
    }
    run = settings.model_copy(update=only)
    assert isinstance(task.pairs, ShardPairs)
    pairs, folder = task.pairs.rebatched(division(run).rows), task.folder / "baseline"
    free = replace(task, noise_free=True, pairs=pairs, folder=folder, label="baseline", on_curves=None, probe=None)
    free = replace(free, follow=None, distance=None, picture_features=None, watched=None)
    free.folder.mkdir(exist_ok=True)
    return fit(free, plain, run, inputs.experiment.family, settings.baseline.steps), plain


def complete(folder: Path) -> Path:
    """The folder with everything that dvc.yaml declares, empty where this experiment has none of it."""
    for part in ("baseline", "curves/plots/metrics"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return folder


def main(name: str) -> str:
    """Run the stage. Returns a line for the log."""
    root = config.project_root()
    experiment = config.load_experiment(name)
    choose_device(experiment.device, name)
    if experiment.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # before the first look at this process's state
    if experiment.distill is None:
        assert experiment.student is not None
        if not this_process().is_main_process:
            return ""
        folder = root / "work" / config.fingerprint("student", name, experiment.student)
        info = materialise_student(experiment.student, folder, root / "data" / name / "teacher")
        publish(complete(folder), root / "models" / name)
        return f"wrote models/{name}: {experiment.student}, SHA-256 {info.sha256[:12]}..."
    demand_commit(root)
    return distill(name, experiment, experiment.distill, root)
