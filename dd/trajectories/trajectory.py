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
from dd.flow.map import Codes, map_noise
from dd.models.base import Condition, Filters, Teacher


@dataclass(frozen=True)
class Trajectory:
    """tokens: (B, L) int64, the end of the trajectory. evaluations: (B, L) int64, of the map's field."""

    tokens: Tensor
    evaluations: Tensor


@torch.no_grad()
def decode(teacher: Teacher, condition: Condition, filters: Filters, draw: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """Tokens (B, L), group by group: draw(log_probs (B, n, V), positions) gives the (B, n) tokens of each."""
    state = teacher.start(condition, filters)
    parts = []
    for group in range(len(teacher.groups)):
        parts.append(draw(teacher.log_probs(state), teacher.groups.slice(group)))
        if group + 1 < len(teacher.groups):
            teacher.advance(state, parts[-1])
    return torch.cat(parts, 1)


def trajectory(
    teacher: Teacher,
    condition: Condition,
    noise: Tensor,
    filters: Filters,
    solver: Solver | None = None,
    codes: Codes | None = None,
) -> Trajectory:
    """The tokens that the noise (B, L, C) leads to.

    codes: `Codes.prepare(teacher.codebook)`, for callers that come again and again.
    """
    shape = (teacher.groups.length, teacher.codebook.shape[1])
    if noise.ndim != 3 or noise.shape[1:] != shape:
        raise DDError(f"noise must be (B, {shape[0]}, {shape[1]}) for this teacher, got {tuple(noise.shape)}")
    ready = codes or Codes.prepare(teacher.codebook)
    noise = noise.to(teacher.codebook.device)
    evaluations = []

    def draw(log_probs: Tensor, positions: slice) -> Tensor:
        result = map_noise(noise[:, positions].flatten(0, 1), log_probs.flatten(0, 1), ready, solver)
        evaluations.append(result.evaluations.view(log_probs.shape[:2]))
        return result.tokens.view(log_probs.shape[:2])

    tokens = decode(teacher, condition, filters, draw)
    return Trajectory(tokens, torch.cat(evaluations, 1))


def sample(teacher: Teacher, condition: Condition, filters: Filters, generator: torch.Generator) -> Tensor:
    """Plain sampling from the teacher: tokens (B, L) by multinomial draws."""

    def draw(log_probs: Tensor, positions: slice) -> Tensor:
        flat = log_probs.flatten(0, 1).exp()
        return torch.multinomial(flat, 1, generator=generator).view(log_probs.shape[:2])

    return decode(teacher, condition, filters, draw)


def balanced_classes(indices: Tensor, num_classes: int) -> Tensor:
    """The class of each sample index: all classes in turn, so that any run of indices is balanced. (B,) to (B,)."""
    return indices.long() % num_classes
