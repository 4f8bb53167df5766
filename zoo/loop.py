"""The training loop of the zoo's tokenizers and teachers: warm-up and cosine, EMA, checkpoints, resume."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from dd.config import fingerprint
from dd.distillation.optimizers import EMA, build_optimizers, cosine, set_rate
from dd.errors import DDError
from dd.system.progress import Progress, progress
from zoo.settings import HERE, Training

log = logging.getLogger(__name__)


def fit(
    model: nn.Module,
    loss_of: Callable[[int], dict[str, Tensor]],
    steps: int,
    run: Training,
    identity: object,
    label: str,
) -> None:
    """Train `model`; it ends in eval mode with its averaged weights.

    loss_of(step) gives the loss terms of one step (their sum is minimised) and draws its randomness from the step
    number alone, so that a resumed run continues exactly. identity: what the run depends on; a checkpoint of
    anything else is not taken up.
    """
    folder = HERE / "work" / fingerprint(identity, run, label)
    checkpoint = folder / "checkpoint.pt"
    optimizers = build_optimizers(model, run.lr, run.muon_lr, run.weight_decay)
    ema = EMA(model, run.ema)
    first = _resume(checkpoint, model, optimizers, ema)
    saved = time.monotonic()
    model.train()
    bar: Progress[None] = progress(steps, unit="steps", label=label, done=first)
    with bar:
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
            bar.update(1, **shown)
            if time.monotonic() - saved > 60 * run.checkpoint_minutes:
                _save(checkpoint, step + 1, model, optimizers, ema)
                saved = time.monotonic()
    model.load_state_dict(ema.average)
    model.eval()


def _save(path: Path, step: int, model: nn.Module, optimizers: list[torch.optim.Optimizer], ema: EMA) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "ema": ema.state_dict(),
    }
    scratch = path.with_suffix(".tmp")
    torch.save(state, scratch)
    os.replace(scratch, path)


def _resume(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], ema: EMA) -> int:
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    ema.load_state_dict(state["ema"])
    log.info("continuing from step %d", state["step"])
    return int(state["step"])
