"""Optimizers, schedule and weight averaging, for the students and for the zoo's own networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

# Parameters under these names are tables or heads: Muon is for the matrices inside the blocks.
_NOT_MUON = ("embed", "output", "head", "lm_", "table")


def build_optimizers(
    model: nn.Module,
    lr: float,
    muon_lr: float = 0.0,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.95),
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or (muon_lr > 0) Muon for the blocks' matrices and AdamW for the rest.

    Weight decay applies to matrices only.
    """
    muon, matrices, rest = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if muon_lr and parameter.ndim == 2 and not any(word in name for word in _NOT_MUON):
            muon.append(parameter)
        elif parameter.ndim >= 2:
            matrices.append(parameter)
        else:
            rest.append(parameter)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=betas, fused=True)
    ]
    if muon:
        optimizers.append(torch.optim.Muon(muon, lr=muon_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def cosine(step: int, steps: int, warmup: int, final: float) -> float:
    """Share of the peak rate at a step: linear warm-up, then half a cosine down to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_rate(optimizers: Iterable[torch.optim.Optimizer], share: float) -> None:
    """Set every group's rate to a share of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share


class EMA:
    """Exponential moving average of a model's floating-point state, kept in float32.

    Other state is copied, and so are buffers that hold infinities (attention masks), which have no average.
    With warm-up the decay at step n is min(decay, (1 + n) / (10 + n)), so that short runs forget their beginning.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = True) -> None:
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.average = {name: value.detach().clone() for name, value in _state(model)}
        self.copied = {n for n, v in _state(model) if not v.is_floating_point() or not bool(v.isfinite().all())}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        averaged = [(self.average[name], value) for name, value in _state(model) if name not in self.copied]
        torch._foreach_lerp_([average for average, _ in averaged], [value for _, value in averaged], 1 - decay)
        for name, value in _state(model):
            if name in self.copied:
                self.average[name].copy_(value)

    def restart(self) -> None:
        """Begin a new average at the present one: its first updates count much again (with warm-up)."""
        self.updates = 0

    def state_dict(self) -> dict[str, Tensor | int]:
        """For a checkpoint."""
        return {**{f"average.{k}": v for k, v in self.average.items()}, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """From a checkpoint."""
        self.updates = int(state["updates"])
        for name, value in self.average.items():
            value.copy_(state[f"average.{name}"])  # type: ignore[arg-type]


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return iter((name, value.detach()) for name, value in model.state_dict().items())
