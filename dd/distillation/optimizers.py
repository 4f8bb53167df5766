"""Optimizers, schedule and weight averaging, for the students and for the zoo's own networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from dd.models.precision import has_bf16

# Parameters under these names are tables or heads: Muon is for the matrices inside the blocks.
_NOT_MUON = ("embed", "output", "head", "lm_", "table")


# Coefficients of the quintic Newton-Schulz iteration (Jordan 2024), as torch.optim.Muon has them.
_NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)


def orthogonalise(matrix: Tensor, steps: int = 5, eps: float = 1e-7) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, roughly: singular values end in about 0.7 to 1.2.

    In bfloat16 where the device multiplies it in hardware, else in float32. matrix (m, n); the result has its type or
    bfloat16.
    """
    exact = not has_bf16(matrix.device.type)
    x = matrix.to(torch.float32 if exact else torch.bfloat16, copy=True)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x.div_(x.norm().clamp(min=eps))
    x = _iterate_small(x, steps) if exact and 2 * x.shape[0] < x.shape[1] else _iterate(x, steps)
    return x.T if tall else x


def _iterate(x: Tensor, steps: int) -> Tensor:
    """x <- (a + b x x' + c (x x')^2) x."""
    a, b, c = _NEWTON_SCHULZ
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterate_small(x: Tensor, steps: int) -> Tensor:
    """The same, a quarter faster where x (m, n) is wide: all its factors are polynomials of x x' (m, m), and commute.

    In float32 alone: it squares the singular values, and bfloat16 has no digits left for that.
    """
    a, b, c = _NEWTON_SCHULZ
    gram = x @ x.T
    product: Tensor | None = None
    for step in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else product @ factor
        if step < steps - 1:
            gram = factor @ (gram @ factor)
    return x if product is None else product @ x


class Muon(torch.optim.Optimizer):
    """Muon (Jordan 2024) for matrices: momentum, orthogonalised, scaled like AdamW (Liu et al. 2025).

    Equal to torch.optim.Muon with adjust_lr_fn="match_rms_adamw", state included, except that torch's always multiplies
    in bfloat16. A CPU without native bfloat16 does that in a naive loop: 70 % of a training step went there.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.0, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                buffer = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
                buffer.lerp_(matrix.grad, 1 - momentum)
                update = orthogonalise(matrix.grad.lerp(buffer, momentum))
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.add_(update, alpha=-rate * 0.2 * math.sqrt(max(matrix.shape)))


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
        optimizers.append(Muon(muon, lr=muon_lr, weight_decay=weight_decay))
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
