"""Trajectories: a teacher's decoding loop with the noise-to-token map in place of the random draw.

With the noise e = (e_1 .. e_L) of an image fixed, its tokens q(e) are fixed. The trajectory of Distilled Decoding,
X_t = (q_1 .. q_t, e_t+1 .. e_L), needs nothing but the pair (e, q), and e follows from a seed
(`dd.trajectories.noise`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dd.errors import DDError
from dd.flow.grid import Solver
from dd.flow.map import Codes, FlowResult, check_possible, map_noise
from dd.models.base import Condition, Filters, Teacher


@dataclass(frozen=True)
class Trajectory:
    """tokens: (B, L) int64, the end of the trajectory. evaluations: (B, L) int64, of the map's field."""

    tokens: Tensor
    evaluations: Tensor


Draw = Callable[[Tensor, slice], Tensor]


@torch.no_grad()
def decode(
    teacher: Teacher,
    condition: Condition,
    filters: Filters,
    draw: Draw,
    prefix: Tensor | None = None,
    stop: int | None = None,
) -> Tensor:
    """Tokens (B, L), group by group: draw(log_probs (B, n, V), positions) gives the (B, n) tokens of each.

    prefix: (B, n) tokens of complete leading groups, which are kept. stop: draw only the groups before it, by default
    all; the result ends there.
    """
    groups, stop = teacher.groups, len(teacher.groups) if stop is None else stop
    parts = [] if prefix is None else [prefix]
    first = 0 if prefix is None else groups.starts.index(prefix.shape[1])
    state = teacher.start(condition, filters, prefix) if first else teacher.start(condition, filters)
    for group in range(first, stop):
        parts.append(draw(teacher.log_probs(state), groups.slice(group)))
        if group + 1 < stop:
            teacher.advance(state, parts[-1])
    if isinstance(draw, Mapped):
        draw.check()
    return torch.cat(parts, 1)


def multinomial(generator: torch.Generator) -> Draw:
    """Independent random draws from (B, n, V) log-probabilities.

    Exponential numbers race, code v at the rate p_v, and the first wins: what `torch.multinomial` does, with the same
    numbers, without the two questions about its input that make an accelerator's host wait at every token.
    """

    def draw(log_probs: Tensor, positions: slice) -> Tensor:
        waits = torch.empty_like(log_probs).exponential_(generator=generator)
        return waits.reciprocal_().mul_(log_probs.exp()).argmax(-1)

    return draw


class Mapped:
    """What the noise (B, L, C) is mapped to: a `Draw`. evaluations: (B, n) of the groups drawn so far.

    Nothing is read back from an accelerator while the loop runs; `check` does so after it.
    """

    def __init__(self, noise: Tensor, codes: Codes, solver: Solver | None = None) -> None:
        self.noise, self.codes, self.solver = noise, codes, solver
        self.evaluations: list[Tensor] = []

    def __call__(self, log_probs: Tensor, positions: slice) -> Tensor:
        result = self.map(self.noise[:, positions].flatten(0, 1), log_probs.flatten(0, 1))
        self.evaluations.append(result.evaluations.view(log_probs.shape[:2]))
        return result.tokens.view(log_probs.shape[:2])

    def map(self, noise: Tensor, log_probs: Tensor) -> FlowResult:
        """One group's tokens, all images' together: noise (B n, C), log_probs (B n, V)."""
        return map_noise(noise, log_probs, self.codes, self.solver)

    def check(self) -> None:
        """Raise DDError where the teacher gave a token no possible code."""
        if self.evaluations:
            check_possible(torch.cat(self.evaluations, 1))


def trajectory(
    teacher: Teacher,
    condition: Condition,
    noise: Tensor,
    filters: Filters,
    solver: Solver | None = None,
    codes: Codes | None = None,
    draw: Mapped | None = None,
) -> Trajectory:
    """The tokens that the noise (B, L, C) leads to.

    codes: `Codes.prepare(teacher.codebook)`; pass it when calling repeatedly. draw: another way to run the map.
    """
    shape = (teacher.groups.length, teacher.codebook.shape[1])
    if noise.ndim != 3 or noise.shape[1:] != shape:
        raise DDError(f"noise must be (B, {shape[0]}, {shape[1]}) for this teacher, got {tuple(noise.shape)}")
    if draw is None:
        draw = Mapped(noise.to(teacher.codebook.device), codes or Codes.prepare(teacher.codebook), solver)
    tokens = decode(teacher, condition, filters, draw)
    return Trajectory(tokens, torch.cat(draw.evaluations, 1))


def sample(teacher: Teacher, condition: Condition, filters: Filters, generator: torch.Generator) -> Tensor:
    """Plain sampling from the teacher: tokens (B, L) by multinomial draws."""
    return decode(teacher, condition, filters, multinomial(generator))


def balanced_classes(indices: Tensor, num_classes: int) -> Tensor:
    """The class of each sample index: all classes in turn, so that any run of indices is balanced. (B,) to (B,)."""
    return indices.long() % num_classes
