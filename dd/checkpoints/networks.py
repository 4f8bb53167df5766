"""Networks of the zoo that an experiment uses beside its teacher: to train against, to measure by. Knows no torch."""

from __future__ import annotations

from pathlib import Path

from dd.checkpoints import zoo
from dd.config import Experiment, project_root
from dd.errors import DDError
from dd.system.files import sha256_file


def distillation_networks(experiment: Experiment) -> list[Path]:
    """What the student is trained against: the files of losses.perceptual_network."""
    if experiment.distill is None:
        return []
    entry = zoo.entries().get(experiment.distill.losses.perceptual_network)
    return [zoo.index_file().parent / file.path for file in entry.files()] if entry and entry.shipped else []


def evaluation_networks(experiment: Experiment) -> list[Path]:
    """What measures a data set's pictures: extractor, reference, floor images; of scenes also their reader."""
    name = experiment.evaluate.protocol
    if not name.startswith("fd-"):
        return []
    folder = project_root() / "zoo" / name.removeprefix("fd-")
    files = [folder / file for file in ("extractor.safetensors", "reference.safetensors", "images.npz")]
    return [*files, folder.with_name(f"{folder.name}-reader") / "extractor.safetensors"]


def digests(files: list[Path]) -> dict[str, str]:
    """16 hex digits of the content of each file that is there, by its path below the project's root."""
    root = project_root()
    return {path.relative_to(root).as_posix(): sha256_file(path)[:16] for path in files if path.is_file()}


def refuse_missing(name: str, experiment: Experiment) -> None:
    """Raise DDError, before any work, if what the student is to be trained against is not there."""
    settings = experiment.distill
    if settings is None or not (settings.losses.perceptual or (settings.second.steps and settings.second.frechet)):
        return
    wanted = settings.losses.perceptual_network
    if wanted != "lpips":
        zoo.entry(wanted, "extractor")
        if missing := [path for path in distillation_networks(experiment) if not path.is_file()]:
            raise DDError(f"{name}: {missing[0].name} of '{wanted}' is missing ({missing[0]}): train or restore it")
