"""The training loop of the zoo's tokenizers and teachers: warm-up and cosine, EMA, checkpoints, resume."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from dd.config import fingerprint
from dd.distillation.optimizers import EMA, build_optimizers, cosine, set_rate
from dd.errors import DDError, Stopped
from dd.system.progress import Progress, progress
from dd.system.signals import Requests
from zoo.settings import HERE, Training

log = logging.getLogger(__name__)


@dataclass
class Best:
    """The averaged weights with the lowest score so far. every: steps between two looks."""

    score_of: Callable[[], float]
    every: int
    score: float = math.inf
    step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def look(self, step: int, model: nn.Module, ema: EMA) -> None:
        """Score the average; the model itself goes on as it was."""
        present = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(ema.average)
        score = self.score_of()
        if score < self.score:
            self.score, self.step = score, step
            self.weights = {name: value.clone() for name, value in ema.average.items()}
        model.load_state_dict(present)
        model.train()


def fit(
    model: nn.Module,
    loss_of: Callable[[int], dict[str, Tensor]],
    steps: int,
    run: Training,
    identity: object,
    label: str,
    best: Best | None = None,
    owner: str = "",
) -> None:
    """Train `model`; it ends in eval mode with its averaged weights (of `best`, those with the lowest score).

    loss_of(step) gives the loss terms of one step (their sum is minimised) and draws its randomness from the step
    number alone, so that a resumed run continues exactly. identity: what the run depends on, data included; a
    checkpoint of anything else is not taken up. owner: whose it is, in the name of its folder. SIGTERM and Ctrl-C end
    the training after the step, saved: Stopped.
    """
    checkpoint = work_folder(owner, identity, run, label) / "checkpoint.pt"
    optimizers = build_optimizers(model, run.lr, run.muon_lr, run.weight_decay)
    ema = EMA(model, run.ema)
    first = _resume(checkpoint, model, optimizers, ema, best)
    saved = time.monotonic()
    model.train()
    bar: Progress[None] = progress(steps, unit="steps", label=label, done=first)
    with bar, Requests(interrupt=True) as asked:
        for step in range(first, steps):
            set_rate(optimizers, cosine(step, steps, run.warmup, 0.01))
            terms = loss_of(step)
            loss = torch.stack(list(terms.values())).sum()
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            ema.update(model)
            shown: dict[str, float] = {n: term.item() for n, term in terms.items()} if step % 20 == 0 else {}
            if any(not math.isfinite(v) for v in shown.values()):
                raise DDError(f"{label}: the loss is not finite at step {step} ({shown}); lower lr")
            if best and ((step + 1) % best.every == 0 or step + 1 == steps):
                best.look(step + 1, model, ema)
            bar.update(1, **shown)
            if asked.save or time.monotonic() - saved > 60 * run.checkpoint_minutes:
                _save(checkpoint, step + 1, model, optimizers, ema, best)
                saved, asked.save = time.monotonic(), False
            if asked.stop:
                raise Stopped(f"{label}: stopped after step {step + 1}, which is saved: the same command goes on")
    model.load_state_dict(best.weights if best and best.weights else ema.average)
    if best and best.weights:
        log.info("%s: kept the weights of step %d of %d, score %.4f", label, best.step, steps, best.score)
    model.eval()


def work_folder(owner: str, identity: object, run: Training, label: str) -> Path:
    """Where the checkpoint of a training lies: zoo/work/<owner>-<fingerprint>."""
    return HERE / "work" / f"{owner or label.split()[0]}-{fingerprint(identity, run, label)}"


def forget(owner: str, identity: object, run: Training, label: str) -> None:
    """Remove the checkpoint of a training whose network is written."""
    shutil.rmtree(work_folder(owner, identity, run, label), ignore_errors=True)


def _save(
    path: Path, step: int, model: nn.Module, optimizers: list[torch.optim.Optimizer], ema: EMA, best: Best | None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "ema": ema.state_dict(),
        "best": {"score": best.score, "step": best.step, "weights": best.weights} if best else None,
    }
    scratch = path.with_suffix(".tmp")
    torch.save(state, scratch)
    os.replace(scratch, path)


def _resume(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], ema: EMA, best: Best | None) -> int:
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    ema.load_state_dict(state["ema"])
    if best and state["best"]:
        best.score, best.step, best.weights = (state["best"][key] for key in ("score", "step", "weights"))
    log.info("continuing from step %d", state["step"])
    return int(state["step"])
