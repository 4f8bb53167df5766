"""`dd-cli bench training`: a training step against a bare PyTorch loop, and the time the input is waited for."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

    from dd.config import DistillConfig
    from dd.distillation.task import Pairs, PairSource
    from dd.models.base import Groups, Student, Teacher
    from dd.trajectories.reader import Shards

MODELS = ("llamagen-fashion", "var-fashion")
# Second trajectory point, as a share of the groups.
SECOND = 0.5
PAIRS = 4096


@dataclass(frozen=True)
class Report:
    """Medians over the rounds; seconds of one step. waited_seconds: for the input, part of training_seconds."""

    teacher: str
    batch: int
    dtype: str
    device: str
    threads: int
    rounds: int
    steps: int
    bare_seconds: float
    training_seconds: float
    waited_seconds: float
    ratio: float


def training(
    model: Annotated[
        list[str] | None, typer.Option(help="Teachers of 'dd-cli zoo list'; default: llamagen-fashion and var-fashion.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pairs per step.")] = 48,
    steps: Annotated[int, typer.Option(min=3, help="Steps of each loop per round.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the two loops alternate.")] = 5,
    dtype: Annotated[str, typer.Option(help="bf16 or fp32; auto: bf16 where it is fast.")] = "auto",
    muon_lr: Annotated[float, typer.Option(min=0, help="Muon for the blocks' matrices; 0: AdamW for all.")] = 0.01,
    json: Annotated[bool, typer.Option("--json", help="As JSON, and into results/bench/training.json.")] = False,
) -> None:
    """Time a full training step (data, EMA, ...) against a bare loop: same model, batch and dtype, random weights."""
    from dd.bench.output import report

    if dtype not in ("auto", "bf16", "fp32"):
        raise typer.BadParameter(f"expected auto, bf16 or fp32, got {dtype}", param_hint="--dtype")
    logging.getLogger("dd").setLevel(logging.WARNING)
    rows = [asdict(bench(name, batch, steps, rounds, dtype, muon_lr)) for name in model or MODELS]
    report("training", rows, json)


def bench(model: str, batch: int, steps: int, rounds: int, dtype: str, muon_lr: float) -> Report:
    """The figures of one teacher's student."""
    from dd.bench.sampling import build
    from dd.config import DistillConfig

    teacher, student = build(model, True, "cpu")
    student.train().requires_grad_(True)
    config = DistillConfig(
        steps=steps,
        batch=batch,
        muon_lr=muon_lr,
        precision=dtype,
        timesteps=(0, round(SECOND * len(teacher.groups))),
        log_every=steps,
        evaluate_every=steps,
        checkpoint_every=steps,
    )
    return measure(model, teacher, student, config, rounds)


def measure(model: str, teacher: Teacher, student: Student, config: DistillConfig, rounds: int) -> Report:
    """Both loops in turn, the same student in both: whatever else the machine does meets both."""
    import torch

    from dd.distillation.batches import ShardPairs
    from dd.distillation.task import Task
    from dd.distillation.training import this_process, train
    from dd.models.precision import uses_bf16

    device = this_process().device
    teacher = teacher.to(device)
    bare, full, waited = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        shards = make_shards(Path(folder) / "shards", teacher.groups, *teacher.codebook.shape)
        batches = iter(ShardPairs(shards, config.pairs_per_update, 0, device))
        pairs = next(batches)
        task = Task(teacher, ShardPairs(shards, config.pairs_per_update, 0, device), pairs.take(slice(0)), Path(folder))
        for number in range(rounds + 1):  # one more than is counted: the first warms up
            timed = Timed(task.pairs, device)
            train(student, replace(task, pairs=timed, folder=Path(folder) / str(number)), config)
            student.train()
            round_full, round_waited = timed.seconds()
            full.append(round_full)
            waited.append(round_waited)
            bare.append(bare_loop(student, teacher, pairs, config))
    ratios = [a / b for a, b in zip(full[1:], bare[1:], strict=True)]
    fast = uses_bf16(config.precision, device.type)
    return Report(
        teacher=model,
        batch=config.pairs_per_update,
        dtype="bf16" if fast else "fp32",
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        rounds=rounds,
        steps=config.steps,
        bare_seconds=statistics.median(bare[1:]),
        training_seconds=statistics.median(full[1:]),
        waited_seconds=statistics.median(waited[1:]),
        ratio=statistics.median(ratios),
    )


def make_shards(folder: Path, groups: Groups, codes: int, width: int) -> Shards:
    """A set of random tokens: reading costs what it costs with a teacher's."""
    import torch

    from dd.flow.grid import Solver
    from dd.models.base import Filters
    from dd.trajectories.plan import ShardPlan, finish, to_table, write_shard
    from dd.trajectories.reader import open_shards

    plan = ShardPlan(
        pairs=PAIRS,
        held_out=0,
        shard_size=1024,
        batch=256,
        seed=0,
        conditions=10,
        length=groups.length,
        width=width,
        teacher_sha256="",
        codebook_sha256="",
        filters=Filters(),
        solver=Solver(),
    )
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for shard in plan.shards:
        tokens = torch.randint(codes, (shard.rows, plan.length), generator=generator)
        write_shard(folder, shard, to_table(plan, shard, tokens), 0.0)
    finish(folder, plan)
    return open_shards(folder)


def bare_loop(student: Student, teacher: Teacher, pairs: Pairs, config: DistillConfig) -> float:
    """Seconds of a step of what any trainer must do: forward, loss, backward, clipping, update; one batch for all."""
    import torch
    from torch.nn.functional import cross_entropy

    from dd.distillation.objective import trajectory_points
    from dd.distillation.optimizers import build_optimizers
    from dd.models.precision import autocast

    device = pairs.noise.device
    optimizers = build_optimizers(student, config.lr, config.muon_lr, config.weight_decay, config.betas)
    finished = trajectory_points(config.timesteps, len(pairs), 0).to(device)
    known = teacher.groups.group_of_position(device) < finished[:, None]
    x = torch.where(known[..., None], teacher.codebook[pairs.tokens], pairs.noise)
    target = pairs.tokens.masked_fill(known, -100)
    marks = []
    for _ in range(config.steps):
        marks.append(now(device))
        with autocast(config.precision, device.type):
            logits = student(x, finished, pairs.condition).logits
        cross_entropy(logits.flatten(0, 1).float(), target.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), config.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return (marks[-1] - marks[1]) / (len(marks) - 2)


def now(device: torch.device) -> float:
    """A clock that waits for the device's work first."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


class Timed:
    """A source that notes when a batch is asked for (the time between is a step's), and how long it was waited for."""

    def __init__(self, source: PairSource, device: torch.device) -> None:
        self.source, self.device = source, device
        self.asked: list[float] = []
        self.waited: list[float] = []

    def __iter__(self) -> Iterator[Pairs]:
        batches = iter(self.source)
        while True:
            self.asked.append(now(self.device))
            pairs = next(batches)
            self.waited.append(time.perf_counter() - self.asked[-1])
            yield pairs

    def seconds(self) -> tuple[float, float]:
        """Of a step, and of waiting in it; the first step is left out."""
        steps = len(self.asked) - 2
        return (self.asked[-1] - self.asked[1]) / steps, sum(self.waited[1:-1]) / steps

    def state_dict(self) -> dict[str, Any]:
        """The source's."""
        return self.source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The source's."""
        self.source.load_state_dict(state)
