"""The grid of the noise-to-token map, and a multistep method's coefficients on it.

Every token goes over the same grid, measured in its own unit: rho = r s, where s is the spread of its codes under p.
So all coefficients are plain numbers, known before the first token, and a step is a handful of tensor operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from dd.errors import DDError

# Past derivatives in the predictor: Adams-Bashforth of order 4, corrected by Adams-Moulton of order 5.
PAST = 4


@dataclass(frozen=True)
class Solver:
    """How the map is integrated. JSON-able with `dataclasses.asdict`, and part of a shard's identity.

    first: the first step in r, as a fraction of 1 / spread of the codes under p.
    ratio: of one r to the one before, once steps so long are not less than the first.
    negligible: total weight of the codes that may be dropped.
    max_evaluations: after so many the two likeliest codes are compared.
    """

    first: float = 0.2
    ratio: float = 1.18
    negligible: float = 1e-4
    max_evaluations: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.first <= 1:
            raise DDError(f"solver.first must be above 0 and at most 1, got {self.first}")
        if not 1 < self.ratio <= 1.3:
            raise DDError(f"solver.ratio must be above 1 and at most 1.3, or steps are unstable, got {self.ratio}")
        if not 0 < self.negligible <= 0.01:
            raise DDError(
                f"solver.negligible must be above 0 and at most 0.01, or frequencies are biased, got {self.negligible}"
            )
        if self.max_evaluations < 2:
            raise DDError(f"solver.max_evaluations must be at least 2, got {self.max_evaluations}")


@dataclass(frozen=True)
class Grid:
    """Points and the weights of each step.

    rho: the points, rho[0] = 0; points: the same as a tensor. predict, correct: of each step, (PAST + 1,) float32
    weights of the stored derivatives.

    Derivatives are stored in a ring: that at point k in slot k % (PAST + 1). From point k, `predict` extrapolates the
    derivatives at k, k-1, ..; `correct` adds what the derivative at k+1 brings.
    """

    rho: tuple[float, ...]
    points: Tensor
    predict: tuple[Tensor, ...]
    correct: tuple[Tensor, ...]

    def slot(self, point: int) -> int:
        """Where the derivative at a point is stored."""
        return point % (PAST + 1)


@cache
def make_grid(first: float, ratio: float, points: int, device: torch.device) -> Grid:
    """Steps of `first` until one is less than (ratio - 1) rho, from there on steps of (ratio - 1) rho."""
    rho = np.zeros(points)
    for k in range(1, points):
        rho[k] = rho[k - 1] + max(first, (ratio - 1) * rho[k - 1])
    predict, correct = np.zeros((2, points - 1, PAST + 1))
    for k in range(points - 1):
        past = list(range(k, max(-1, k - PAST), -1))
        slots = [point % (PAST + 1) for point in past]
        predict[k, slots] = integrals(rho[past], rho[k], rho[k + 1])
        correct[k, slots] = -predict[k, slots]
        correct[k, [(k + 1) % (PAST + 1), *slots]] += integrals(rho[[k + 1, *past]], rho[k], rho[k + 1])
    tensors = (torch.tensor(table, dtype=torch.float32, device=device) for table in (rho, predict, correct))
    on_device, *tables = tensors
    return Grid(tuple(rho.tolist()), on_device, *(table.unbind() for table in tables))


def integrals(points: np.ndarray, start: float, end: float) -> np.ndarray:
    """Weights w with sum w_i f(points_i) = integral from start to end of the polynomial through f at the points."""
    unit = np.abs(points - start).max(initial=end - start)
    x, stop = (points - start) / unit, (end - start) / unit
    powers = np.arange(len(x))
    return unit * np.linalg.solve(np.vander(x, increasing=True).T, stop ** (powers + 1) / (powers + 1))
