"""Integration of the noise-to-token map (`dd.flow.map`): steps, working sets of codes, and the exact end.

Names: r, y, m, w as in `dd.flow.map`. A token's *pace* is 1 / s, so that r = rho pace on the grid of `dd.flow.grid`,
and what is integrated is u = pace y, du/drho = pace^2 m. Codes are *augmented* by a column -|c|^2 / 2, and u by a
column rho pace^2: then rho u.c is the posterior's logit r y.c - r^2 |c|^2 / 2. Shape letters: N tokens, W width of a
working set, C width of a code, P past derivatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dd.flow import kernel
from dd.flow.grid import PAST, Grid, Solver, make_grid

# Where float32 logits of codes of spread 1 have lost three digits: what is not decided then is centred anew.
REACH = 200.0
# Above so many times this width, tokens that need no more codes than this get their own copy of them.
NARROW, GATHER = 32, 16
# When it is looked which tokens are decided: at the start, and from this point of the grid on at every third one.
LOOK_FROM, LOOK_EVERY = 7, 3
# Fewer numbers (tokens x codes) than that are not worth moving when some of the tokens are decided.
FEW = 1 << 14


def augment(vectors: Tensor) -> Tensor:
    """(..., W, C) codes with minus half their squared norm as one more column: (..., W, C+1)."""
    return torch.cat([vectors, -0.5 * vectors.square().sum(-1, keepdim=True)], -1)


def weigh(left: Tensor, rho: float, log_probs: Tensor, codes: Tensor) -> Tensor:
    """w (N, W) = softmax(log_probs + rho left.codes). left (N, C+1); codes (W, C+1), or each token its own."""
    if codes.ndim == 2:
        return torch.addmm(log_probs, left, codes.T, alpha=rho).softmax(-1)
    return torch.baddbmm(log_probs[:, None], left[:, None], codes.mT, alpha=rho).softmax(-1).squeeze(1)


def mean(weights: Tensor, codes: Tensor) -> Tensor:
    """Posterior mean of some columns of numbers for each code, (W, D) or (N, W, D): (N, D)."""
    return weights @ codes if codes.ndim == 2 else torch.bmm(weights[:, None], codes).squeeze(1)


def with_one(codes: Tensor) -> Tensor:
    """Augmented codes with ones as last column: the mean of it is the derivative of u's last column, over pace^2."""
    return torch.cat([codes[..., :-1], torch.ones_like(codes[..., -1:])], -1)


@dataclass
class Pool:
    """Some tokens at one point of the grid, with the codes that they still need.

    row (N,): their places in the chunk. rate (N, 1): pace^2. u (N, C+1). past (P+1, N, C+1): ring of derivatives.
    log_probs (N, W); codes augmented, shared (W, C+1) or own (N, W, C+1), and the same `with_one`; ids (N, W): own
    codes' places in the codebook, None where shared. weights (N, W): the latest posterior; where the fused kernel keeps
    it to itself, None, and light (N,) is `_light` of it. point (N,): of the grid, where two codes were left, or -1;
    decided (N, C+1): u there. active (N,) bool: tokens that are still here, None for all; the fused kernel leaves out
    the others.
    """

    row: Tensor
    rate: Tensor
    u: Tensor
    past: Tensor
    log_probs: Tensor
    codes: Tensor
    ones: Tensor
    ids: Tensor | None
    weights: Tensor | None
    light: Tensor | None
    point: Tensor
    decided: Tensor
    active: Tensor | None = None

    def __post_init__(self) -> None:
        self.columns = self.past.view(PAST + 1, -1).T  # (N (C+1), P+1)
        self.slots = self.past.unbind()

    def take(self, rows: Tensor) -> Pool:
        """Some of the tokens."""
        values = {}
        for field in fields(self):
            value = getattr(self, field.name)
            shared = value is None or (field.name in ("codes", "ones") and self.ids is None)
            values[field.name] = value if shared else value[:, rows] if field.name == "past" else value[rows]
        return Pool(**values)

    def posterior(self, rho: float) -> Tensor:
        """w (N, W) where the tokens are."""
        return weigh(self.u, rho, self.log_probs, self.codes) if self.weights is None else self.weights

    def pick(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (N, n, C), log-probabilities (N, n) and places in the codebook (N, n) of some columns (N, n)."""
        if self.ids is None:
            return self.codes[columns, :-1], self.log_probs.gather(1, columns), columns
        vectors = self.codes.take_along_dim(columns[..., None], 1)[..., :-1]
        return vectors, self.log_probs.gather(1, columns), self.ids.gather(1, columns)

    def step(self, k: int, grid: Grid, threshold: float | None) -> None:
        """From point k of the grid to k+1, with one evaluation of m. threshold: for `small` there, None: not asked."""
        flat = torch.addmv(self.u.view(-1), self.columns, grid.predict[k])
        self.derive(flat.view_as(self.u), grid.rho[k + 1], grid.slot(k + 1), threshold)
        self.u = flat.addmv_(self.columns, grid.correct[k]).view_as(self.u)

    def derive(self, u: Tensor, rho: float, slot: int, threshold: float | None) -> None:
        """du/drho at u, into a slot of the ring."""
        if self.ids is None and kernel.usable(u, len(self.codes)):
            moments, self.light = kernel.posterior_mean(rho * u, self.log_probs, self.codes, threshold, self.active)
            moments[:, -1] = 1
            self.weights = None
        else:
            self.weights = weigh(u, rho, self.log_probs, self.codes)
            moments = mean(self.weights, self.ones)
        torch.mul(moments, self.rate, out=self.slots[slot])

    def small(self, width: int, negligible: float) -> Tensor:
        """(N,) whether no more than `width` codes matter."""
        threshold = negligible / width
        light = self.light if self.weights is None else _light(self.weights, threshold)
        assert light is not None
        return light <= (width + 0.5) * threshold


def _light(weights: Tensor, threshold: float) -> Tensor:
    """(N,) sum of min(w, threshold): the number of weights above it, times it, and the whole of those below.

    At most n codes matter if this is at most n * threshold: half the time of a real count, and the rest's weight is
    then at most as much.
    """
    return weights.clamp(max=threshold).sum(-1)


@dataclass(frozen=True)
class Ends:
    """Tokens with two codes left: vectors (N, 2, C), log_probs (N, 2), ids (N, 2), y (N, C) at r (N, 1).

    row (N,): place in the chunk. evaluations (N,) int64.
    """

    row: Tensor
    vectors: Tensor
    log_probs: Tensor
    ids: Tensor
    y: Tensor
    r: Tensor
    evaluations: Tensor

    @classmethod
    def of(cls, pool: Pool, grid: Grid) -> Ends:
        """The two likeliest codes of each token of a pool, at the point where they were left."""
        rho, pace, u = grid.points[pool.point][:, None], pool.rate.sqrt(), pool.decided
        weights = weigh(rho * u, 1.0, pool.log_probs, pool.codes)
        vectors, log_probs, ids = pool.pick(likeliest_two(weights))
        return cls(pool.row, vectors, log_probs, ids, u[:, :-1] / pace, rho * pace, pool.point + 1)

    @classmethod
    def join(cls, parts: list[Ends]) -> Ends:
        """All of them."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def likeliest_two(weights: Tensor) -> Tensor:
    """Columns (N, 2) of the largest weights (N, W); on a CPU much faster than `topk`."""
    first = weights.argmax(-1, keepdim=True)
    return torch.cat([first, weights.scatter(1, first, -1.0).argmax(-1, keepdim=True)], -1)


def looks_at(k: int) -> bool:
    """Whether it is looked at point k of the grid which tokens are decided."""
    return k == 0 or (k >= LOOK_FROM and (k - LOOK_FROM) % LOOK_EVERY == 0)


def solve(noise: Tensor, log_probs: Tensor, codes: Tensor, solver: Solver) -> Ends:
    """Every token from r = 0 until two codes are left. noise (N, C), log_probs (N, V), codes (V, C) of spread 1."""
    grid = make_grid(solver.first, solver.ratio, solver.max_evaluations, noise.device)
    pools = Pools(grid, start(noise, log_probs, augment(codes)), solver.negligible)
    for k in range(len(grid.rho)):
        look = looks_at(k)
        if k:
            pools.step(k - 1, look)
        if look:
            pools.sort(k)
            if pools.empty:
                break
    pools.end()
    return Ends.join(pools.ends)


def start(noise: Tensor, log_probs: Tensor, codes: Tensor) -> Pool:
    """Every token at r = 0, where the posterior is p itself. codes (V, C+1) are augmented."""
    weights = log_probs.softmax(-1)
    moments = mean(weights, codes)
    variance = -2 * moments[:, -1:] - moments[:, :-1].square().sum(-1, keepdim=True)
    rate = variance.clamp(min=1e-10).reciprocal()
    u = torch.cat([noise * rate.sqrt(), torch.zeros_like(rate)], -1)
    ones, row = with_one(codes), torch.arange(len(noise), device=noise.device)
    past = noise.new_zeros(PAST + 1, *moments.shape)
    torch.mul(mean(weights, ones), rate, out=past[0])
    return Pool(row, rate, u, past, log_probs, codes, ones, None, weights, None, torch.full_like(row, -1), u)


class Pools:
    """All tokens of a chunk, by how many codes they still need.

    Stage i holds tokens that wait until they need no more than widths[i] codes; the first shares the codebook, the
    others have their own codes. The last stage is for tokens whose r came to REACH: their codes are centred anew.
    """

    def __init__(self, grid: Grid, first: Pool, negligible: float) -> None:
        self.grid, self.negligible = grid, negligible
        self.widths = [NARROW, 2, 2] if len(first.codes) >= GATHER * NARROW else [2, 2]
        self.stages: list[Pool | None] = [first, *[None] * (len(self.widths) - 1)]
        self.ends: list[Ends] = []
        self.far = REACH / float(first.rate.max().sqrt())  # rho where the first token reaches it

    @property
    def empty(self) -> bool:
        """Whether every token has two codes left."""
        return not any(self.stages)

    def step(self, k: int, look: bool) -> None:
        """From point k of the grid to k+1. look: `sort` follows."""
        for pool, width in zip(self.stages, self.widths, strict=True):
            if pool is not None:
                pool.step(k, self.grid, self.negligible / width if look else None)

    def sort(self, k: int) -> None:
        """Move tokens to where they belong at point k."""
        ahead = self.grid.rho[min(len(self.grid.rho) - 1, max(LOOK_FROM, k + LOOK_EVERY))]  # at the next look
        for stage, width in enumerate(self.widths):
            pool = self.stages[stage]
            if pool is not None:
                small = pool.small(width, self.negligible)
                pool = self.decide(pool, small, k) if width == 2 else self.narrow(stage, pool, small, k)
            if pool is not None and ahead > self.far and stage < len(self.stages) - 1:
                pool = self.recentre(pool, (pool.rate[:, 0] > (REACH / ahead) ** 2) & (pool.point < 0), k)
            self.stages[stage] = pool

    def decide(self, pool: Pool, small: Tensor, k: int) -> Pool | None:
        """Note where tokens have come to two codes, and take them out once that pays. Returns who stays."""
        new = small & (pool.point < 0)
        pool.decided = torch.where(new[:, None], pool.u, pool.decided)
        pool.point = torch.where(new, k, pool.point)
        open_rows = (pool.point < 0).nonzero()[:, 0]
        if not len(open_rows):
            self.ends.append(Ends.of(pool, self.grid))
            return None
        if 4 * len(open_rows) > 3 * len(small) or pool.log_probs.numel() < FEW:
            return pool
        self.ends.append(Ends.of(pool.take((pool.point >= 0).nonzero()[:, 0]), self.grid))
        return pool.take(open_rows)

    def narrow(self, stage: int, pool: Pool, small: Tensor, k: int) -> Pool | None:
        """Move tokens to the next stage. Returns who stays."""
        rows = small.nonzero()[:, 0]
        if not len(rows):
            return pool
        self.add(stage + 1, shrink(pool.take(rows), self.grid.rho[k], self.negligible / self.widths[stage]))
        return _without(pool, small)

    def recentre(self, pool: Pool, far: Tensor, k: int) -> Pool | None:
        """Move tokens to the last stage. Returns who stays."""
        rows = far.nonzero()[:, 0]
        if not len(rows):
            return pool
        self.add(len(self.stages) - 1, shrink(pool.take(rows), self.grid.rho[k], self.negligible / 2))
        return _without(pool, far)

    def add(self, stage: int, pool: Pool) -> None:
        """Put tokens into a stage."""
        there = self.stages[stage]
        self.stages[stage] = pool if there is None else join(there, pool)

    def end(self) -> None:
        """Out of evaluations: what is left is decided between the two likeliest codes."""
        last = len(self.grid.rho) - 1
        for pool in self.stages:
            if pool is not None:
                self.decide(pool, torch.ones_like(pool.row, dtype=torch.bool), last)


def _without(pool: Pool, gone: Tensor) -> Pool | None:
    rows = gone.logical_not().nonzero()[:, 0]
    return pool.take(rows) if len(rows) else None


def shrink(pool: Pool, rho: float, threshold: float) -> Pool:
    """Give every token its own copy of the codes that weigh more than `threshold`, centred on the likeliest one.

    Shifting all codes by a and y by r a changes nothing, and differences of close codes then keep all their digits.
    """
    posterior = pool.posterior(rho)
    keep = posterior > threshold
    row, column = keep.nonzero().unbind(-1)
    counts = keep.sum(-1)
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    best = posterior.argmax(-1, keepdim=True)
    columns = best.repeat(1, max(2, int(counts.max())))
    columns[row, slot] = column
    empty = torch.ones_like(columns, dtype=torch.bool)
    empty[row, slot] = False
    vectors, log_probs, ids = pool.pick(columns)
    centre = pool.pick(best)[0][:, 0]
    u, past = pool.u.clone(), pool.past.clone()
    u[:, :-1] -= u[:, -1:] * centre
    past[:, :, :-1] -= past[:, :, -1:] * centre
    weights = posterior.gather(1, columns).masked_fill(empty, 0)
    log_probs = log_probs.masked_fill(empty, -math.inf)
    codes = augment(vectors - centre[:, None])
    return Pool(pool.row, pool.rate, u, past, log_probs, codes, with_one(codes), ids, weights, None, pool.point, u)


def join(one: Pool, two: Pool) -> Pool:
    """One pool from two whose tokens have their own codes, perhaps not equally many."""
    width = max(one.log_probs.shape[1], two.log_probs.shape[1])

    def stack(name: str, fill: float) -> Tensor:
        parts = getattr(one, name), getattr(two, name)
        out = parts[0].new_full((sum(map(len, parts)), width, *parts[0].shape[2:]), fill)
        for part, rows in zip(parts, out.split([len(p) for p in parts]), strict=True):
            rows[:, : part.shape[1]] = part
        return out

    wide = {"log_probs": -math.inf, "codes": 0.0, "ones": 0.0, "ids": 0, "weights": 0.0}
    values = {name: stack(name, fill) for name, fill in wide.items()}
    for name in ("row", "rate", "u", "point", "decided"):
        values[name] = torch.cat([getattr(one, name), getattr(two, name)])
    return Pool(past=torch.cat([one.past, two.past], 1), light=None, **values)


def two_codes(ends: Ends, remainder: bool) -> tuple[Tensor, Tensor | None]:
    """The exact end of the flow between the two likeliest codes a and b: ids (N,), and what is left (N,) if asked for.

    Along u = (a - b) / |a - b| the coordinate z = y.u has the marginal pa N(r a.u, 1) + pb N(r b.u, 1), and a
    one-dimensional flow keeps quantiles: a is reached exactly if P(Z > z) <= pa, and y - r a ends with the coordinate
    of the same quantile. At the end y - r q is normal and independent of the code q, because y = e + r q is normal
    around r q at every r: its first component gives the uniform number that is left.
    """
    vectors, log_probs, r = ends.vectors.double(), ends.log_probs.double(), ends.r.double()
    a, between = vectors[:, 0], vectors[:, 0] - vectors[:, 1]
    length = between.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    u = between / length
    from_a = ends.y.double() - r * a
    z = (from_a * u).sum(-1, keepdim=True)
    margin = log_probs[:, :1] - log_probs[:, 1:]
    pa, pb = margin.sigmoid(), (-margin).sigmoid()
    above = pa * torch.special.ndtr(-z) + pb * torch.special.ndtr(-z - r * length)  # P(Z > z)
    first = above <= pa
    chosen = torch.where(first[:, 0], ends.ids[:, 0], ends.ids[:, 1])
    if not remainder:
        return chosen, None
    quantile = torch.where(first, above / pa.clamp(min=1e-300), (above - pa) / pb.clamp(min=1e-300))
    end = from_a + (-torch.special.ndtri(quantile.clamp(1e-300, 1 - 1e-16)) - z) * u
    return chosen, torch.special.ndtr(end[:, 0])
