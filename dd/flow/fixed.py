"""The noise-to-token map on a fixed schedule: no value is read back to the host, no shape depends on one.

`dd.flow.solver.solve` moves tokens between working sets as they come to need fewer codes. That is the least work, and
right for a CPU, but every move asks the device how many tokens there are, and an accelerator waits. Here all tokens
take part in every step and masks say what counts; at a few points of the grid tokens go over to their own short lists
of codes, and from then on the whole codebook is not read for them (`dd.flow.kernel` leaves out tiles without an active
token). The equations, the grid and the exact end are those of the solver. What differs is when a code of
negligible weight is dropped, so a token in thousands may round to another code.

The work can be recorded as a CUDA graph (`dd.trajectories.graphs`).
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from dd.flow.grid import Solver, make_grid
from dd.flow.solver import NARROW, Ends, Pool, augment, looks_at, start, with_one

# Points of the grid where tokens go over to their own codes; at the last one all that are left do.
MOVES = (10, 16, 25, 40)
# Points from which on own codes are centred anew, and how often: r has then grown 4.4 times, a third of a digit's loss.
CENTRES_FROM, CENTRES_EVERY = 49, 9
# Codes within so many widths of the posterior may still matter to one token: noise of size one, and 12 nats.
WIDTHS = 16.0
# With more codes than this in one spot, a list of them is no gain.
MOST = 512


def solve_fixed(noise: Tensor, log_probs: Tensor, codes: Tensor, solver: Solver, width: int) -> Ends:
    """Every token from r = 0 to the end of the grid. noise (N, C), log_probs (N, V), codes (V, C) of spread 1.

    width: codes that a token keeps for itself, see `width_for`.
    """
    grid = make_grid(solver.first, solver.ratio, solver.max_evaluations, noise.device)
    last = len(grid.rho) - 1
    moves = [point for point in MOVES if point < last]
    moves = moves if len(moves) == len(MOVES) else [*moves, last]
    wide, own = start(noise, log_probs, augment(codes)), None
    waiting = torch.ones_like(wide.row, dtype=torch.bool)
    for k in range(len(grid.rho)):
        if k and k <= moves[-1]:
            wide.step(k - 1, grid, solver.negligible / width if k in moves else None)
        if k and own is not None:
            own.step(k - 1, grid, None)
        if k in moves:
            ready = waiting if k == moves[-1] else waiting & wide.small(width, solver.negligible)
            listed = own_codes(wide, grid.rho[k], width, solver.negligible / width)
            own = listed if own is None else select(ready, listed, own)
            waiting = waiting & ~ready
            wide.active = waiting
        elif own is not None and k >= CENTRES_FROM and (k - CENTRES_FROM) % CENTRES_EVERY == 0:
            centre(own)
        if own is not None and looks_at(k):
            decide(own, own.small(2, solver.negligible) & ~waiting, k)
    assert own is not None
    decide(own, ~waiting, last)
    return Ends.of(own, grid)


def width_for(vectors: Tensor, solver: Solver) -> int | None:
    """How many codes a token must keep for itself, a power of two, or V; None where lists would be too long.

    Where the last tokens take theirs, only codes within a known distance of each other can matter to one token: the
    densest spot of the codebook (V, C) decides. Reads from the device: once for each codebook.
    """
    last = solver.max_evaluations - 1
    rho = make_grid(solver.first, solver.ratio, solver.max_evaluations, vectors.device).rho[min(MOVES[-1], last)]
    near = WIDTHS / rho
    crowd = max(int((torch.cdist(part, vectors) <= near).sum(-1).max()) for part in vectors.split(1024))
    return min(len(vectors), max(NARROW, 1 << (crowd - 1).bit_length())) if crowd <= MOST else None


def own_codes(pool: Pool, rho: float, width: int, threshold: float) -> Pool:
    """Every token's `width` likeliest codes, those above `threshold`, as its own, centred on the likeliest.

    What `dd.flow.solver.shrink` does, with as many columns whatever the weights are.
    """
    weights, columns = pool.posterior(rho).topk(width)
    vectors, log_probs, ids = pool.pick(columns)
    light = weights <= threshold
    light[:, 0] = False
    own = replace(
        pool,
        u=pool.u.clone(),
        past=pool.past.clone(),
        log_probs=log_probs.masked_fill(light, -torch.inf),
        codes=(codes := augment(vectors)),
        ones=with_one(codes),
        ids=ids,
        weights=weights.masked_fill(light, 0),
        light=None,
        decided=pool.u,
        active=None,
    )
    centre(own)
    return own


def centre(pool: Pool) -> None:
    """Shift every token's own codes so that the likeliest is 0, in place: close codes then keep all their digits."""
    assert pool.weights is not None
    best = pool.weights.argmax(-1, keepdim=True)
    vectors = pool.codes[..., :-1]
    middle = vectors.take_along_dim(best[..., None], 1)  # (N, 1, C)
    pool.codes = augment(vectors - middle)
    pool.ones = with_one(pool.codes)
    shift = middle[:, 0]
    pool.decided = torch.cat([pool.decided[:, :-1] - pool.decided[:, -1:] * shift, pool.decided[:, -1:]], -1)
    pool.u[:, :-1] -= pool.u[:, -1:] * shift
    pool.past[:, :, :-1] -= pool.past[:, :, -1:] * shift


def select(chosen: Tensor, one: Pool, other: Pool) -> Pool:
    """The tokens of `one` where `chosen` (N,), of `other` elsewhere."""
    values: dict[str, Any] = {}
    for field in fields(Pool):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if a is None:
            values[field.name] = None
            continue
        shape = (1, -1, 1) if field.name == "past" else (-1, *[1] * (a.ndim - 1))
        values[field.name] = torch.where(chosen.view(shape), a, b)
    return Pool(**values)


def decide(pool: Pool, small: Tensor, k: int) -> None:
    """Note where tokens have come to two codes."""
    new = small & (pool.point < 0)
    pool.decided = torch.where(new[:, None], pool.u, pool.decided)
    pool.point = torch.where(new, k, pool.point)
