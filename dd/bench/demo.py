"""`dd-cli bench demo`: the CPU's features and, from a two-second probe, about how long `make demo` takes on it."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

if TYPE_CHECKING:
    from dd.config import Experiment

SECONDS = 2.0  # of the probe
RECORDS = Path(__file__).with_name("demo.json")


class Record(TypedDict):
    """A whole run of an experiment on some machine, and what the probe said there. threads: of the CPU."""

    seconds: float
    probe_seconds: float
    cpu: str
    threads: int


def demo(
    experiment: Annotated[str, typer.Argument(help="An experiment of params.yaml.")] = "llamagen-fashion",
    record: Annotated[
        float | None,
        typer.Option(
            min=0, help="Record this duration of a whole run here, in seconds, for estimates on other machines."
        ),
    ] = None,
) -> None:
    """Print the CPU and how long `make demo` will take, from a short probe and a recorded run."""
    import torch

    from dd.config import load_experiment
    from dd.system.files import write_text
    from dd.system.machine import describe

    found, threads = probe_seconds(load_experiment(experiment)), torch.get_num_threads()
    known = records()
    if record is not None:
        known[experiment] = Record(seconds=record, probe_seconds=round(found, 5), cpu=describe("cpu"), threads=threads)
        write_text(RECORDS, json_module.dumps(known, indent=1) + "\n")
    typer.echo(f"this CPU  {describe('cpu')}; {threads} thread{'s' * (threads != 1)}")
    typer.echo(f"time      {expected(experiment, found, known.get(experiment))}")


def expected(experiment: str, probe: float, record: Record | None) -> str:
    """How long the run will take, from the probe here (seconds) and a whole run elsewhere."""
    if record is None:
        return f"a training step takes {probe:.2f} s; no whole run of {experiment} was recorded to compare with"
    minutes = max(1, round(record["seconds"] * probe / record["probe_seconds"] / 60))
    return (
        f"about {minutes} minute{'s' * (minutes != 1)}: a training step takes {probe:.2f} s, against "
        f"{record['probe_seconds']:.2f} s where all took {record['seconds'] / 60:.0f} ({record['cpu']}, "
        f"{record['threads']} threads)"
    )


def records() -> dict[str, Record]:
    """Whole runs that were measured, by experiment."""
    return dict(json_module.loads(RECORDS.read_text(encoding="utf-8"))) if RECORDS.is_file() else {}


def probe_seconds(experiment: Experiment, seconds: float = SECONDS) -> float:
    """The shortest training step (forward, backward, update) of the experiment's student with random weights."""
    step, best = _step(experiment), float("inf")
    step()
    begun = time.perf_counter()
    while (started := time.perf_counter()) < begun + seconds or best == float("inf"):
        step()
        best = min(best, time.perf_counter() - started)
    return best


def _step(experiment: Experiment) -> Callable[[], None]:
    from dataclasses import asdict

    import torch
    from torch.nn.functional import cross_entropy

    from dd.bench.sampling import conditions
    from dd.checkpoints import teachers, zoo
    from dd.distillation.optimizers import build_optimizers
    from dd.errors import DDError
    from dd.models.precision import autocast
    from dd.models.registry import build_student, build_teacher, student_config

    settings, entry = experiment.distill, zoo.entry(experiment.teacher.name, "teacher")
    if settings is None or entry.family is None or settings.batch == "auto":
        raise DDError("bench demo: expected an experiment that trains a student here with a given batch, got another")
    teacher = build_teacher(entry.family, teachers.tokenizer_config(entry), entry.config or {})
    student = build_student(entry.family, student_config(teacher, **asdict(settings.student))).train()
    optimizers = build_optimizers(student, settings.lr, settings.muon_lr, settings.weight_decay, settings.betas)
    batch, length = settings.batch, teacher.groups.length
    x, condition = torch.randn(batch, length, teacher.codebook.shape[1]), conditions(teacher, batch)
    finished, tokens = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch * length, dtype=torch.int64)

    def step() -> None:
        with autocast(settings.precision):
            logits = student(x, finished, condition).logits
        cross_entropy(logits.flatten(0, 1).float(), tokens).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step
