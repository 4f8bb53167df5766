"""Stage distill: `python -m stages.distill EXPERIMENT` -> models/<experiment>/.

Trains the student on the experiment's trajectories (and the set predictor behind the baselines), or fetches a
released student. Work goes on in work/<fingerprint>/ after a kill, and is published as a whole.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from dd.shards import Shards, open_shards
from torch import Tensor

from dd import config, zoo
from dd.config import DistillConfig, Experiment
from dd.errors import DDError
from dd.files import publish
from dd.losses import ImageDistance
from dd.machine import tune_cpu
from dd.models.base import Student, Teacher
from dd.models.registry import build_student, student_config
from dd.noise import noise as make_noise
from dd.students import materialise_student, save_student_dir
from dd.training import Curves, Outcome, Pairs, Task, check_timesteps, train
from dd.weights import load_teacher_dir, read_info

log = logging.getLogger(__name__)


class ShardPairs:
    """Endless batches from the shards: noise is recomputed from (seed, sample index), never stored."""

    def __init__(self, shards: Shards, teacher: Teacher, batch: int, seed: int, device: torch.device) -> None:
        self.shards, self.device = shards, device
        self.length, self.width = teacher.groups.length, teacher.codebook.shape[1]
        self.reader = shards.reader(batch, seed=seed)

    def __iter__(self) -> Iterator[Pairs]:
        for rows in self.reader:
            yield self.pairs(rows.indices, rows.tokens, rows.conditions)

    def pairs(self, indices: Tensor, tokens: Tensor, classes: Tensor) -> Pairs:
        """Rows of the shards with their noise, on the device."""
        e = make_noise(self.shards.seed, indices, self.length, self.width)
        return Pairs(e.to(self.device), tokens.to(self.device), classes.to(self.device))

    def state_dict(self) -> dict[str, Any]:
        """Place in the shuffled order."""
        return self.reader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.reader.load_state_dict(state)


def open_task(settings: DistillConfig, name: str, root: Path, folder: Path) -> tuple[Task, dict[str, Any]]:
    """Everything that training needs, checked before anything is loaded; with the student's configuration."""
    teacher_dir = root / "data" / name / "teacher"
    info = read_info(teacher_dir)
    shards = open_shards(root / "data" / name / "trajectories", expect_teacher=info.sha256)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = load_teacher_dir(teacher_dir, device)
    check_timesteps((*settings.timesteps, *settings.baseline.timesteps), len(teacher.groups))
    source = ShardPairs(shards, teacher, settings.batch, settings.seed, device)
    held_out = shards.held_out()
    task = Task(
        teacher=teacher,
        pairs=source,
        held_out=source.pairs(held_out.indices, held_out.tokens, held_out.conditions),
        folder=folder,
        distance=image_distance(settings, device),
    )
    return task, student_config(teacher, **settings.student.model_dump())


def image_distance(settings: DistillConfig, device: torch.device) -> ImageDistance | None:
    """The perceptual network that the settings name: LPIPS, or an extractor of the zoo."""
    if not settings.losses.perceptual:
        return None
    wanted = settings.losses.perceptual_network
    if wanted != "lpips":
        from dd.metrics.classifier import SmallClassifier

        return SmallClassifier.load(zoo.local(zoo.entry(wanted, "extractor").file)).to(device).perceptual_distance
    try:
        import lpips
    except ImportError:
        raise DDError(
            'losses.perceptual: lpips is not installed; pip install "dd[perceptual]", name an extractor of the zoo as '
            "losses.perceptual_network, or set perceptual: 0"
        ) from None
    network = lpips.LPIPS(net="vgg").to(device).eval().requires_grad_(False)
    return lambda images, targets: network(images, targets).flatten()


def fit(task: Task, sizes: dict[str, Any], settings: DistillConfig, family: str, steps: int) -> Outcome:
    """Build, initialise and train one student."""
    torch.manual_seed(settings.seed)
    student: Student = build_student(family, sizes)
    if settings.initialise == "teacher":
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
    """Train, save and publish. Returns what was done."""
    target = root / "models" / name
    teacher_dir = root / "data" / name / "teacher"
    manifest = root / "data" / name / "trajectories" / "manifest.json"
    identity = [settings, read_info(teacher_dir).sha256, manifest] if manifest.is_file() else [settings]
    folder = root / "work" / config.fingerprint("distill", *identity)
    folder.mkdir(parents=True, exist_ok=True)
    task, sizes = open_task(settings, name, root, folder)
    out = folder / "out"
    task = with_curves(task, folder / "curves")
    outcome = fit(task, sizes, settings, experiment.family, settings.steps)
    about = {
        "steps": outcome.steps,
        "hours": round(outcome.seconds / 3600, 3),
        "settings": settings.model_dump(mode="json"),
    }
    save_student_dir(out, outcome.student, sizes, teacher_dir, about)
    write_curves(out / "curves", outcome.curves)
    if settings.baseline.steps:
        baseline(task, sizes, settings, experiment.family, folder, teacher_dir, out)
    publish(complete(out), target)
    accuracy = {k.removeprefix("accuracy/"): round(v[-1][1], 3) for k, v in outcome.curves.items() if "accuracy" in k}
    return f"wrote models/{name}: {outcome.steps} steps, held-out token accuracy {json.dumps(accuracy)}"


def with_curves(task: Task, folder: Path) -> Task:
    """The task, writing its curves while it runs."""
    return replace(task, on_curves=lambda curves: write_curves(folder, curves))


def baseline(
    task: Task, sizes: dict[str, Any], settings: DistillConfig, family: str, folder: Path, teacher_dir: Path, out: Path
) -> None:
    """The set predictor of onestep* and skip-n: the authors' student design, trained with its noise set to zero."""
    plain = {**sizes, "noise_logits": False, "refinements": 0}
    run = settings.model_copy(update={"timesteps": settings.baseline.timesteps})
    free = replace(task, noise_free=True, folder=folder / "baseline", label="baseline", on_curves=None)
    free.folder.mkdir(exist_ok=True)
    outcome = fit(free, plain, run, family, settings.baseline.steps)
    save_student_dir(out / "baseline", outcome.student, plain, teacher_dir, {"steps": outcome.steps, "noise": False})


def complete(folder: Path) -> Path:
    """The folder with everything that dvc.yaml declares, empty where this experiment has none of it."""
    for part in ("baseline", "curves/plots/metrics"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return folder


def main(name: str) -> str:
    root = config.project_root()
    experiment = config.load_experiment(name)
    if experiment.distill is None:
        assert experiment.student is not None
        folder = root / "work" / config.fingerprint("student", name, experiment.student)
        info = materialise_student(experiment.student, folder, root / "data" / name / "teacher")
        publish(complete(folder), root / "models" / name)
        return f"wrote models/{name}: {experiment.student}, SHA-256 {info.sha256[:12]}..."
    return distill(name, experiment, experiment.distill, root)


if __name__ == "__main__":
    tune_cpu()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="a key of `experiments` in params.yaml")
    arguments, started = parser.parse_args(), time.monotonic()
    try:
        done = main(arguments.experiment)
    except DDError as error:
        raise SystemExit(f"error: {error}") from None
    log.info("%s (%.0f s)", done, time.monotonic() - started)
