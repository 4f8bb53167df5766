"""Distillation: a student trained on (noise, tokens) pairs, on Accelerate.

Nothing random happens in a step: pairs come in an order that follows from a seed, trajectory points in turn. So a run
that was killed and resumed ends with the same weights as an undisturbed one (same machine, CPU). An update takes
`global_batch` pairs, whatever the number of processes (`accelerate launch`) and of the parts that fit into memory: a
checkpoint of four processes goes on in two. Checkpoints are whole folders, renamed into place.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor

from dd.checkpoints import runs
from dd.config import DistillConfig, fingerprint
from dd.distillation.batches import Division, divide
from dd.distillation.losses import LossWeights, distillation_loss
from dd.distillation.memory import checkpoint_blocks, keep_blocks
from dd.distillation.objective import Objective, check_timesteps, trajectory_points
from dd.distillation.optimizers import EMA, build_optimizers, cosine, set_rate
from dd.distillation.task import Curves, Pairs, Task
from dd.errors import DDError, Stopped
from dd.models.base import Student
from dd.system.files import recover
from dd.system.progress import Progress, progress
from dd.system.signals import Requests

log = logging.getLogger(__name__)

# A run whose loss is so many times its first one has diverged.
_DIVERGED = 3.0
# Steps of the second phase's warm-up.
_SECOND_WARMUP = 10
# Terms that are means over images; all others are means over positions.
_OF_IMAGES = ("perceptual", "frechet")


@dataclass(frozen=True)
class _Asked:
    """What is wanted after a step beside the plan: an end, a checkpoint, a measurement."""

    stop: bool
    save: bool
    measure: bool


@dataclass
class Outcome:
    """student: with averaged weights, in eval mode. seconds: of training, resumed parts included."""

    student: Student
    steps: int
    seconds: float
    curves: Curves = field(default_factory=dict)


def this_process() -> PartialState:
    """This process among those that `accelerate launch` started (one without it), and its device.

    Raises DDError where `accelerate` was told to shard the model.
    """
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() in ("1", "true", "yes"):
            raise DDError(
                f"accelerate is set to {name}, which is not supported: plain data parallelism (DDP) is enough below "
                "1.5 billion parameters; run `accelerate config` again without it"
            )
    return PartialState(cpu="ACCELERATE_USE_CPU" in os.environ or not torch.cuda.is_available())


def division(config: DistillConfig) -> Division:
    """How this process and those beside it divide an update. Raises DDError where that is impossible."""
    if config.batch == "auto":
        raise DDError("batch: auto is for the stage, which knows the memory; give a number of pairs")
    found = divide(config.pairs_per_update, config.batch, this_process().num_processes, len(config.timesteps))
    if config.second.steps and config.second.frechet and found.rows < len(config.timesteps):
        raise DDError(
            f"second.frechet needs a row of every timestep in a batch, a process gets {found.rows} at once; "
            "raise global_batch or start fewer processes"
        )
    return found


def train(student: Student, task: Task, config: DistillConfig, steps: int | None = None) -> Outcome:
    """Train a student and return it with its averaged weights.

    steps: of the first phase, if not config.steps. Continues from task.folder if a checkpoint lies there. Raises
    DDError when that is of another run, and when the loss is no longer finite or has diverged. With several processes
    only the main one measures, writes and has curves. task.pairs must give `division(config).rows` at a time.
    """
    check_timesteps(config.timesteps, len(task.teacher.groups))
    return _Run(student, task, config, steps or config.steps).go()


class _Run:
    def __init__(self, student: Student, task: Task, config: DistillConfig, steps: int) -> None:
        self.task, self.config = task, config
        self.turn, self.steps = steps, steps + config.second.steps  # where the second phase begins, and ends
        self.checkpoint = task.folder / "checkpoint"
        self.division = division(config)
        self.accelerator = Accelerator(
            cpu=this_process().device.type == "cpu",
            mixed_precision="no",  # the objective sets it, for the student alone
            gradient_accumulation_steps=self.division.parts,
            log_with=[name for name in config.trackers if name != "dvclive" and task.watched] or None,
            project_dir=task.watched,
        )
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        self.identity = fingerprint(config.recipe(), steps, task.noise_free)
        if config.tf32 and self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.allow_tf32 = True
        self.objective = Objective(task, config, self.accelerator, student.causal)
        self.second, self.fake_score = self.objective.second, self.objective.fake_score
        self.bare = student.to(self.device)
        if config.checkpoint_blocks:
            checkpoint_blocks(self.bare)
        self.optimizers = build_optimizers(student, config.lr, config.muon_lr, config.weight_decay, config.betas)
        own = len(self.optimizers)
        if (fake_score := self.objective.bare_fake_score) is not None:
            self.optimizers += build_optimizers(
                fake_score, self.second.fake_score_lr, self.second.fake_score_muon_lr, 0.0, config.betas
            )
        self.model, *self.optimizers = self.accelerator.prepare(self.bare, *self.optimizers)
        self.students = self.optimizers[:own]  # the fake_score's have no schedule
        self.ema = EMA(self.bare, config.ema, config.ema_warmup)
        self.first, self.seconds = 0, 0.0
        self.saved: int | None = None
        self.curves: Curves = {}
        self.recent: list[dict[str, Tensor]] = []  # what steps gave since the last look at it
        self.requests = Requests()
        self.looked = self.kept = time.monotonic()  # of the last measurement, the last checkpoint

    def go(self) -> Outcome:
        self._resume()
        self._open_trackers()
        if self.first == 0:
            self._measure(0)
        started = self.looked = self.kept = time.monotonic()
        batches = iter(self.task.pairs)
        self.model.train()
        # Every process looks at the same numbers, one shows them.
        bar: Progress[Any] | None = None
        if self.main:
            bar = progress(self.steps, unit="steps", label=self.task.label, done=self.first)
        with bar or nullcontext(), self.requests:
            for step in range(self.first, self.steps):
                self.recent.append(self._step(step, batches))
                done = step + 1
                last, asked = done == self.steps, self._asked()
                save = asked.save or done % self.config.checkpoint_every == 0
                values = self._log(done) if last or save or done % self.config.log_every == 0 else {}
                if bar:
                    bar.update(1, **values)
                if last or asked.measure or done % self.config.evaluate_every == 0:
                    self._measure(done)
                if last or save:
                    self._save(done, self.seconds + time.monotonic() - started)
                if asked.stop and not last:
                    raise Stopped(
                        f"{self.task.label}: stopped by SIGTERM after step {done}, which is saved: run the same "
                        "command to go on"
                    )
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.bare.load_state_dict(self.ema.average)
        keep_blocks(self.bare)
        return Outcome(self.bare.eval(), self.steps, self.seconds + time.monotonic() - started, self.curves)

    def _asked(self) -> _Asked:
        """What signals and the clock ask for; all processes get the same answer."""
        now, minute = time.monotonic(), 60
        wishes = [
            self.requests.stop,
            self.requests.save or now - self.kept > minute * self.config.checkpoint_minutes,
            now - self.looked > minute * self.config.evaluate_minutes,
        ]
        if self.accelerator.num_processes > 1:
            counts = torch.tensor(wishes, dtype=torch.float32, device=self.device)
            wishes = [count > 0 for count in self.accelerator.reduce(counts, "sum").tolist()]
        self.requests.save = False
        return _Asked(*wishes)

    def _open_trackers(self) -> None:
        """Those of `distill.trackers` beside DVCLive, whose files the stage writes."""
        if not self.accelerator.log_with:
            return
        assert self.task.watched is not None
        name = self.task.watched.name
        plain = {k: v for k, v in self.config.recipe().items() if isinstance(v, int | float | str)}
        wandb = {"name": name, "dir": str(self.task.watched), "id": self.identity, "resume": "allow"}
        self.task.watched.mkdir(parents=True, exist_ok=True)
        self.accelerator.init_trackers("dd", plain, {"wandb": wandb})

    def _step(self, step: int, batches: Iterator[Pairs]) -> dict[str, Tensor]:
        """One update of the weights. Returns its loss terms (means over its parts) and the gradient's norm."""
        if step == self.turn:
            self.bare.load_state_dict(self.ema.average)
            self.ema.restart()
        set_rate(self.students, self._rate(step))
        result: dict[str, Tensor] = {}  # stays on the device: to look at it every time would hold the device up
        for part in range(self.division.parts):
            pairs = next(batches)
            first = self.division.first(step, part, self.accelerator.process_index)
            with self.accelerator.accumulate(self.model):
                points = trajectory_points(self.config.timesteps, len(pairs), first).to(self.device)
                warming_up = self.turn <= step < self.turn + self.second.warmup
                if warming_up:
                    terms, idle = self.objective.warm_up(self.model, pairs, points), torch.zeros((), device=self.device)
                else:
                    terms, idle = self.objective.terms(self.model, pairs, points, step >= self.turn)
                if (share := self._share(step, first)) != 1:
                    terms = {name: term if name in _OF_IMAGES else share * term for name, term in terms.items()}
                loss = torch.stack([*terms.values(), idle]).sum()
                if loss.requires_grad:  # not while only moments fill
                    self.accelerator.backward(loss)
                for name, term in terms.items():
                    result[name] = result.get(name, 0.0) + term.detach() / self.division.parts
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
                    result["gradient_norm"] = torch.as_tensor(norm, device=self.device)
                    if self.fake_score is not None:
                        self.accelerator.clip_grad_norm_(self.fake_score.parameters(), self.config.clip)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.bare)
        return result

    def _share(self, step: int, first: int) -> float:
        """Unknown positions of the part that begins with pair `first`, over those of an average part of the step.

        Terms are means over unknown positions; weighted so, parts and processes add up to the mean of all. It is 1
        where every trajectory point has the same share of a part.
        """
        if self.config.loss_split:
            return 1.0
        starts, points = self.task.teacher.groups.starts, self.config.timesteps
        unknown = [starts[-1] - starts[point] for point in points]

        def mean(first: int, rows: int) -> Fraction:
            whole, rest = divmod(rows, len(points))
            return Fraction(whole * sum(unknown) + sum(unknown[(first + i) % len(points)] for i in range(rest)), rows)

        total = self.config.pairs_per_update
        return float(mean(first, self.division.rows) / mean(step * total, total))

    def _rate(self, step: int) -> float:
        """Share of the peak rates: a warm-up and a cosine in each phase."""
        if step < self.turn:
            return cosine(step, self.turn, self.config.warmup, self.config.final_lr)
        start, final = self.turn + self.second.warmup, self.config.final_lr
        return self.second.rate * cosine(max(0, step - start), self.steps - start, _SECOND_WARMUP, final)

    def _log(self, done: int) -> dict[str, float]:
        """Look at the steps since the last look. Raises DDError if one of them went wrong."""
        names = list(dict.fromkeys(name for row in self.recent for name in row))
        none = torch.zeros((), device=self.device)  # of a term that a step did not have: phases differ
        table = torch.stack([torch.stack([row.get(name, none).float() for name in names]) for row in self.recent])
        found = self.accelerator.reduce(table, "mean").tolist()
        rows = [
            {name: value for name, value in zip(names, values, strict=True) if name in had}
            for values, had in zip(found, self.recent, strict=True)
        ]
        self.recent.clear()
        for step, row in enumerate(rows, done + 1 - len(rows)):
            if not all(map(math.isfinite, row.values())):
                raise self._failure("is not finite", step, row)
        values = {name: statistics.fmean(row[name] for row in rows if name in row) for name in names}
        for name, value in values.items():
            curve = name if name == "gradient_norm" else f"loss/{name}"
            self.curves.setdefault(curve, []).append((done, value))
            self.accelerator.log({curve: value}, step=done)
        losses = [points for name, points in self.curves.items() if name.startswith("loss/")]
        if sum(points[-1][1] for points in losses) > _DIVERGED * sum(points[0][1] for points in losses):
            raise self._failure(f"has grown {_DIVERGED:g}-fold", done, values)
        return values

    def _failure(self, what: str, step: int, values: dict[str, float]) -> DDError:
        terms = ", ".join(f"{name} {value:g}" for name, value in values.items())
        good = f"{self.checkpoint} (step {self.saved})" if self.saved is not None else "none"
        return DDError(
            f"{self.task.label}: the loss {what} at step {step} ({terms}): lower lr or clip; "
            f"last good checkpoint: {good}"
        )

    @torch.no_grad()
    def _measure(self, step: int) -> None:
        """Held-out token accuracy and loss of the averaged weights, for every trajectory point."""
        if self.main:
            weights = {name: value.clone() for name, value in self.bare.state_dict().items()}
            self.bare.load_state_dict(self.ema.average)
            self.bare.eval()
            values = self._held_out() if len(self.task.held_out) else {}
            probed = self.task.probe(self.bare, step) if self.task.probe else {}
            values |= {f"probe/{name}": value for name, value in probed.items()}
            self.bare.load_state_dict(weights)
            self.bare.train()
            for name, value in values.items():
                self.curves.setdefault(name, []).append((step, value))
            self.accelerator.log(values, step=step)
            if self.task.on_curves:
                self.task.on_curves(self.curves)
        self.looked = time.monotonic()
        self.accelerator.wait_for_everyone()

    def _held_out(self) -> dict[str, float]:
        values: dict[str, float] = {}
        pairs, rows = self.task.held_out, len(self.task.held_out)
        for point in self.config.timesteps:
            accuracy = loss = 0.0
            for start in range(0, rows, self.division.rows):
                part = pairs.take(slice(start, start + self.division.rows))
                finished = torch.full((len(part),), point, dtype=torch.int64, device=self.device)
                output, unknown = self.objective.predict(self.bare, part, finished)
                terms = distillation_loss(output, part.tokens, unknown, self.task.teacher.codebook, LossWeights())
                right = (output.logits.argmax(-1) == part.tokens)[unknown].float().mean()
                accuracy += right.item() * len(part) / rows
                loss += terms["cross_entropy"].item() * len(part) / rows
            values |= {f"accuracy/t{point}": accuracy, f"held_out/t{point}": loss}
        return values

    def _save(self, step: int, seconds: float) -> None:
        if self.main:
            state = {
                "model": self.bare.state_dict(),
                "optimizers": [o.state_dict() for o in self.optimizers],
                "ema": self.ema.state_dict(),
                **{name: part.state_dict() for name, part in self.objective.parts().items()},
            }
            record = {
                "identity": self.identity,
                "step": step,
                "seconds": seconds,
                "pairs": self.task.pairs.state_dict(),
                "curves": self.curves,
            }
            runs.write(self.checkpoint, state, record)
        self.saved, self.kept = step, time.monotonic()
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        if self.main:
            recover(self.checkpoint)
        self.accelerator.wait_for_everyone()
        if not self.checkpoint.is_dir():
            return
        state, record = runs.read(self.checkpoint, self.identity)
        self._restore(state, record)
        log.info("%s: continuing from step %d", self.task.label, self.first)

    def _restore(self, state: dict[str, Any], record: dict[str, Any]) -> None:
        try:
            self.bare.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.ema.load_state_dict(state["ema"])
            for name, part in self.objective.parts().items():
                part.load_state_dict(state[name])
        except (ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DDError(f"{self.checkpoint} is of another student ({reason}): delete it") from error
        self.task.pairs.load_state_dict(record["pairs"])
        self.first, self.seconds, self.saved = record["step"], record["seconds"], record["step"]
        self.curves = {name: [(int(s), v) for s, v in points] for name, points in record["curves"].items()}
