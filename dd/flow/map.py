"""The noise-to-token map: a fixed Gaussian vector in place of a random draw (Distilled Decoding, section 3.2).

One position has probabilities p_j over code vectors c_j. Flow matching on the straight path x_t = (1-t) e + t q,
e ~ N(0, I), q ~ p, has a closed form, because the target is a sum of Diracs (`posterior`, `velocity`)::

    w_j(x,t) = softmax_j( log p_j + (t x.c_j - t^2 |c_j|^2 / 2) / (1-t)^2 )       posterior over codes
    m(x,t)   = sum_j w_j c_j                                                       posterior mean
    dx/dt    = (m - x) / (1-t),   x(0) = e                                         x(1) is one code

What is solved here is the same equation in r = t / (1-t) and y = x / (1-t) = e + r q::

    w_j(y,r) = softmax_j( log p_j + r y.c_j - r^2 |c_j|^2 / 2 ),    dy/dr = m(y,r),    y(0) = e

The right side has no stiff term and no singular end: it is a quadrature of a bounded function, and y keeps noise of
size one at every r, so an error in y has a fixed meaning. Three exact facts finish a token early:

- a code whose weight has become negligible stays so (all but `Solver.negligible` of the time): it need not be kept;
- with two codes left the equation is one-dimensional along their difference, its flow keeps quantiles, and the answer
  is a comparison of two numbers (`dd.flow.solver.two_codes`), however close the two codes are. No token waits for the
  end of a grid, so none is pulled to the likelier of two neighbours;
- identical codes cannot be told apart by any flow: they are one code with the sum of their probabilities, and the
  quantile that is left over, a uniform number independent of the choice so far, picks one (`Codes.members`).

Shape letters: N tokens, V codebook size, C width of a code, W width of a working set of codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dd.errors import DDError
from dd.flow import kernel
from dd.flow.fixed import solve_fixed, width_for
from dd.flow.grid import Solver
from dd.flow.solver import augment, solve, two_codes, weigh
from dd.models.precision import products

# Numbers in one work array (tokens x codes): about the size of a CPU's cache, and as much as a GPU likes.
_CHUNK = {"cpu": 1 << 19}
_CHUNK_OTHER = 1 << 27
# But so many tokens at least, or the fixed cost of a step weighs too much.
_ROWS = 256


@dataclass(frozen=True)
class FlowResult:
    """tokens: (N,) int64, the code that each noise vector flows to. evaluations: (N,) int64, of the field m."""

    tokens: Tensor
    evaluations: Tensor


@dataclass(frozen=True)
class Codes:
    """A codebook made ready for the map: distinct vectors, centred, of spread 1 (neither changes the map).

    vectors: (U, C) float32. inverse: (V,) distinct vector of each code, or None
    where no two codes are equal. size: V.
    """

    vectors: Tensor
    inverse: Tensor | None
    size: int
    _widths: dict[Solver, int | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def prepare(cls, codes: Tensor) -> Codes:
        """From (V, C) code vectors, on their device."""
        if codes.ndim != 2 or not len(codes):
            raise DDError(f"codes must be (V, C), got shape {tuple(codes.shape)}")
        if not torch.isfinite(codes).all():
            raise DDError("codes must be finite, got NaN or infinity in the codebook")
        distinct, inverse = torch.unique(codes.float(), dim=0, return_inverse=True)
        duplicates = len(distinct) < len(codes)
        exact = (distinct if duplicates else codes).double()
        exact = exact - exact.mean(0)
        exact = exact / exact.square().sum(-1).mean().sqrt().clamp(min=1e-30)
        if len(exact) == 1:  # two codes at least, so that a runner-up always exists; this one is never drawn
            exact = torch.cat([exact, torch.ones_like(exact)])
        return cls(exact.float(), inverse if duplicates else None, len(codes))

    def width(self, solver: Solver) -> int | None:
        """Codes that a token keeps on a fixed schedule (`dd.flow.fixed.width_for`); None: not on this codebook."""
        if solver not in self._widths:
            self._widths[solver] = width_for(self.vectors, solver)
        return self._widths[solver]

    def merge(self, log_probs: Tensor) -> Tensor:
        """(N, V) log-probabilities of the codes to (N, U) of the distinct vectors."""
        if self.inverse is None:
            return log_probs
        peak = log_probs.amax(-1, keepdim=True)
        sums = log_probs.new_zeros(len(log_probs), len(self.vectors))
        return sums.index_add_(1, self.inverse, (log_probs - peak).exp()).log_() + peak

    def members(self, distinct: Tensor, rest: Tensor, log_probs: Tensor) -> Tensor:
        """Tokens (N,) from distinct vectors (N,), the uniform numbers `rest` (N,) and log_probs (N, V)."""
        assert self.inverse is not None
        member = self.inverse == distinct[:, None]  # (N, V)
        shares = torch.where(member, log_probs.double(), -math.inf).softmax(-1).cumsum(-1)
        below = (shares <= rest[:, None]).sum(-1, keepdim=True)
        last = (member & (log_probs > -math.inf)).long().cumsum(-1).argmax(-1, keepdim=True)
        return torch.minimum(below, last).squeeze(-1)


def map_noise(
    noise: Tensor, log_probs: Tensor, codes: Tensor | Codes, solver: Solver | None = None, fixed: bool | None = None
) -> FlowResult:
    """The code that each noise vector flows to.

    noise: (N, C), any float dtype. log_probs: (N, V), -inf where a code is filtered out; need not be normalised.
    codes: (V, C), or `Codes.prepare` of them where the same codebook is used again and again. All on one device; the
    arithmetic is float32, whatever autocast and TF32's switch say. A token's result does not depend on the others of
    the batch.

    fixed: on a schedule that reads nothing back from the device (`dd.flow.fixed`); None: where the fused kernels run on
    an accelerator. A row that leaves no code then has 0 `evaluations` (`check_possible`); otherwise it raises DDError.
    """
    solver = solver or Solver()
    ready = codes if isinstance(codes, Codes) else Codes.prepare(codes)
    if noise.ndim != 2 or noise.shape[1] != ready.vectors.shape[1]:
        raise DDError(f"noise must be (N, {ready.vectors.shape[1]}), got shape {tuple(noise.shape)}")
    if log_probs.shape != (len(noise), ready.size):
        raise DDError(f"log_probs must be ({len(noise)}, {ready.size}), got shape {tuple(log_probs.shape)}")
    if not len(noise):
        empty = torch.zeros(0, dtype=torch.long, device=noise.device)
        return FlowResult(empty, empty)
    if fixed is None:
        fixed = noise.device.type != "cpu" and kernel.usable(noise, len(ready.vectors))
    width = ready.width(solver) if fixed else None
    possible = log_probs.amax(-1).abs() < math.inf
    if width is None:
        check_possible(possible)
    rows = min(1 << 20, max(_ROWS, _CHUNK.get(noise.device.type, _CHUNK_OTHER) // ready.size))
    kind = noise.device.type
    with torch.autocast(kind, enabled=False), products(tf32=False, device=kind):
        parts = [
            _map_chunk(e.float(), p.float(), ready, solver, width)
            for e, p in zip(noise.split(rows), log_probs.split(rows), strict=True)
        ]
    tokens, evaluations = torch.cat([p.tokens for p in parts]), torch.cat([p.evaluations for p in parts])
    return FlowResult(tokens, evaluations if width is None else evaluations * possible)


def check_possible(counts: Tensor) -> None:
    """Raise DDError if one of these is 0: `FlowResult.evaluations` of tokens that had no possible code."""
    if not (counts > 0).all():
        raise DDError("log_probs must leave every token one possible code, got a row of -inf or NaN")


def _map_chunk(noise: Tensor, log_probs: Tensor, codes: Codes, solver: Solver, width: int | None) -> FlowResult:
    """Some tokens at once."""
    merged = codes.merge(log_probs)
    if merged.shape[1] < len(codes.vectors):  # the dummy beside a single code
        merged = torch.cat([merged, torch.full_like(merged, -math.inf)], -1)
    if width is None:
        ends = solve(noise, merged, codes.vectors, solver)
    else:
        ends = solve_fixed(noise, merged, codes.vectors, solver, width)
    chosen, left = two_codes(ends, codes.inverse is not None)
    if width is None:  # in the order in which tokens were decided
        order = ends.row.argsort()
        chosen, left = chosen[order], None if left is None else left[order]
        evaluations = ends.evaluations[order]
    else:
        evaluations = ends.evaluations
    return FlowResult(chosen if left is None else codes.members(chosen, left, log_probs), evaluations)


def posterior(x: Tensor, t: Tensor, log_probs: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """w (N, V) and m (N, C) of the equations above, in the paper's x (N, C) and t (N,) < 1. For reading and tests."""
    r = t / (1 - t)
    left = torch.cat([x * (r / (1 - t))[:, None], (r * r)[:, None]], -1)
    weights = weigh(left, 1.0, log_probs, augment(codes))
    return weights, weights @ codes


def velocity(x: Tensor, t: Tensor, log_probs: Tensor, codes: Tensor) -> Tensor:
    """dx/dt (N, C) of the paper's equation at t (N,) < 1."""
    return (posterior(x, t, log_probs, codes)[1] - x) / (1 - t)[:, None]
