"""Distillation: a student trained on (noise, tokens) pairs, on Accelerate.

Everything random is drawn from (seed, step), so a run that was killed and resumed ends with the same weights as an
undisturbed one (same machine, CPU). Checkpoints are whole folders, renamed into place.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from torch import Tensor, nn

from dd.config import DistillConfig
from dd.errors import DDError
from dd.losses import ImageDistance, LossWeights, distillation_loss
from dd.models.base import Condition, Student, Teacher
from dd.optim import EMA, build_optimizers, cosine, set_rate
from dd.precision import has_bf16
from dd.progress import progress
from dd.sampling import known, perturb

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pairs:
    """A batch of trajectories: noise (B, L, C) float32, tokens (B, L) int64, condition of size B."""

    noise: Tensor
    tokens: Tensor
    condition: Condition


class PairSource(Protocol):
    """Endless batches in a fixed shuffled order; its state resumes at the exact sample."""

    def __iter__(self) -> Iterator[Pairs]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


# Name -> (step, value) in rising order.
Curves = dict[str, list[tuple[int, float]]]


@dataclass
class Outcome:
    """student: with averaged weights, in eval mode. seconds: of training, resumed parts included."""

    student: Student
    steps: int
    seconds: float
    curves: Curves = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What one run trains on.

    noise_free: zero where nothing is known, which makes the student a set predictor (the baselines).
    distance: image distance for the perceptual term. probe: further held-out numbers of the averaged student.
    on_curves: called with the curves so far, after every measurement.
    """

    teacher: Teacher
    pairs: PairSource
    held_out: Pairs
    folder: Path
    noise_free: bool = False
    distance: ImageDistance | None = None
    probe: Callable[[Student], dict[str, float]] | None = None
    on_curves: Callable[[Curves], None] | None = None
    label: str = "distill"


def check_timesteps(timesteps: tuple[int, ...], groups: int) -> None:
    """Raise DDError for trajectory points that the shards cannot give."""
    if max(timesteps) >= groups:
        raise DDError(
            f"timesteps: expected points below the teacher's {groups} groups, got {max(timesteps)}; "
            "each is a number of finished groups"
        )


def trajectory_points(timesteps: tuple[int, ...], rows: int, seed: int, step: int) -> Tensor:
    """(rows,) int64: the trajectory point of each row of a step, from `timesteps` in equal shares, shuffled."""
    points = torch.tensor(timesteps)[torch.arange(rows) % len(timesteps)]
    generator = torch.Generator().manual_seed((seed << 32) + step)
    return points[torch.randperm(rows, generator=generator)]


def student_input(task: Task, pairs: Pairs, finished: Tensor, codebook: Tensor) -> Tensor:
    """(B, L, C): the trajectory point `finished` (B,) of each pair."""
    noise = torch.zeros_like(pairs.noise) if task.noise_free else pairs.noise
    return perturb(codebook[pairs.tokens], noise, finished, task.teacher.groups)


def train(student: Student, task: Task, config: DistillConfig, steps: int | None = None) -> Outcome:
    """Train a student and return it with its averaged weights.

    Continues from task.folder if a checkpoint lies there. Raises DDError when the loss is no longer finite.
    """
    check_timesteps(config.timesteps, len(task.teacher.groups))
    return _Run(student, task, config, steps or config.steps).go()


class _Run:
    def __init__(self, student: Student, task: Task, config: DistillConfig, steps: int) -> None:
        self.task, self.config, self.steps = task, config, steps
        self.folder = task.folder
        self.weights = LossWeights(**config.losses.model_dump(exclude={"perceptual_network"}))
        self.accelerator = Accelerator(
            mixed_precision=_precision(config.precision),
            gradient_accumulation_steps=config.accumulate,
            project_config=ProjectConfiguration(project_dir=str(self.folder)),
            step_scheduler_with_optimizer=False,
        )
        device = self.accelerator.device
        self.teacher = task.teacher.to(device).eval().requires_grad_(False)
        self.codebook = self.teacher.codebook
        self.bare = student.to(device)
        self.optimizers = build_optimizers(student, config.lr, config.muon_lr, config.weight_decay, config.betas)
        self.model, *self.optimizers = self.accelerator.prepare(self.bare, *self.optimizers)
        self.ema = EMA(self.bare, config.ema, config.ema_warmup)
        self.first, self.seconds = 0, 0.0
        self.curves: Curves = {}

    def go(self) -> Outcome:
        self._resume()
        if self.first == 0:
            self._measure(0)
        started = time.monotonic()
        batches = iter(self.task.pairs)
        self.model.train()
        with progress(self.steps, unit="steps", label=self.task.label, done=self.first) as bar:
            for step in range(self.first, self.steps):
                terms = self._step(step, batches)
                done = step + 1
                due = done % self.config.log_every == 0 or done == self.steps
                bar.update(**(self._log(done, terms) if due else {}))
                if done % self.config.evaluate_every == 0 or done == self.steps:
                    self._measure(done)
                if done % self.config.checkpoint_every == 0 and done < self.steps:
                    self._save(done, self.seconds + time.monotonic() - started)
        self.bare.load_state_dict(self.ema.average)
        return Outcome(self.bare.eval(), self.steps, self.seconds + time.monotonic() - started, self.curves)

    def _step(self, step: int, batches: Iterator[Pairs]) -> dict[str, Tensor]:
        set_rate(self.optimizers, cosine(step, self.steps, self.config.warmup, self.config.final_lr))
        terms: dict[str, Tensor] = {}
        for part in range(self.config.accumulate):
            pairs = next(batches)
            with self.accelerator.accumulate(self.model):
                terms = self._terms(self.model, pairs, step * self.config.accumulate + part)
                self.accelerator.backward(torch.stack(list(terms.values())).sum())
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.bare)
        return terms

    def _terms(self, model: nn.Module, pairs: Pairs, step: int) -> dict[str, Tensor]:
        finished = trajectory_points(self.config.timesteps, len(pairs.tokens), self.config.seed, step)
        finished = finished.to(pairs.tokens.device)
        with self.accelerator.autocast():
            output = model(student_input(self.task, pairs, finished, self.codebook), finished, pairs.condition)
        unknown = ~known(finished, self.teacher.groups)
        return distillation_loss(
            output,
            pairs.tokens,
            unknown,
            self.codebook,
            self.weights,
            self.teacher.tokenizer.decode,
            self.task.distance,
        )

    def _log(self, step: int, terms: dict[str, Tensor]) -> dict[str, float]:
        values = {name: term.item() for name, term in terms.items()}
        if not all(math.isfinite(v) for v in values.values()):
            last = self._checkpoint()
            raise DDError(
                f"{self.task.label}: the loss is not finite at step {step} "
                f"({', '.join(f'{k} {v:g}' for k, v in values.items())}); lower lr; "
                f"last good checkpoint: {last if last.is_dir() else 'none'}"
            )
        for name, value in values.items():
            self.curves.setdefault(f"loss/{name}", []).append((step, value))
        return values

    @torch.no_grad()
    def _measure(self, step: int) -> None:
        """Held-out token accuracy and loss of the averaged weights, for every trajectory point."""
        if not len(self.task.held_out.tokens):
            return
        weights = {name: value.clone() for name, value in self.bare.state_dict().items()}
        self.bare.load_state_dict(self.ema.average)
        self.bare.eval()
        pairs = self.task.held_out
        for point in self.config.timesteps:
            finished = torch.full((len(pairs.tokens),), point, dtype=torch.int64, device=pairs.tokens.device)
            with self.accelerator.autocast():
                output = self.bare(student_input(self.task, pairs, finished, self.codebook), finished, pairs.condition)
            unknown = ~known(finished, self.teacher.groups)
            right = (output.logits.argmax(-1) == pairs.tokens)[unknown].float().mean().item()
            terms = distillation_loss(output, pairs.tokens, unknown, self.codebook, LossWeights())
            self.curves.setdefault(f"accuracy/t{point}", []).append((step, right))
            self.curves.setdefault(f"held_out/t{point}", []).append((step, terms["cross_entropy"].item()))
        for name, value in (self.task.probe(self.bare) if self.task.probe else {}).items():
            self.curves.setdefault(f"probe/{name}", []).append((step, value))
        self.bare.load_state_dict(weights)
        self.bare.train()
        if self.task.on_curves and self.accelerator.is_main_process:
            self.task.on_curves(self.curves)

    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    def _save(self, step: int, seconds: float) -> None:
        if not self.accelerator.is_main_process:
            self.accelerator.wait_for_everyone()
            return
        scratch = self.folder / "checkpoint.tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        state = {
            "model": self.bare.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "ema": self.ema.state_dict(),
        }
        torch.save(state, scratch / "state.pt")
        record = {"step": step, "seconds": seconds, "pairs": self.task.pairs.state_dict(), "curves": self.curves}
        (scratch / "run.json").write_text(json.dumps(record))
        replace_folder(scratch, self._checkpoint())
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        folder = self._checkpoint()
        recover_folder(folder)
        if not folder.is_dir():
            return
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        record = json.loads((folder / "run.json").read_text())
        self.bare.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.ema.load_state_dict(state["ema"])
        self.task.pairs.load_state_dict(record["pairs"])
        self.first, self.seconds = record["step"], record["seconds"]
        self.curves = {name: [(int(s), v) for s, v in points] for name, points in record["curves"].items()}
        log.info("continuing from step %d", self.first)


def replace_folder(new: Path, target: Path) -> None:
    """Put a finished folder in the place of another; a kill in between leaves one of them whole."""
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Undo a `replace_folder` that was killed between its two renames."""
    old = target.with_name(target.name + ".old")
    if not target.exists() and old.is_dir():
        os.replace(old, target)


def _precision(wanted: str) -> str:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return "bf16" if wanted == "bf16" or (wanted == "auto" and has_bf16(device)) else "no"
