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

- a code whose weight has become negligible stays so (all but `Solver.negligible` of the time), and leaves;
- with two codes left the equation is one-dimensional along their difference, its flow keeps quantiles, and the answer
  is a comparison of two numbers (`_two_codes`), however close the two codes are. No token waits for the end of a
  grid, so none is pulled to the likelier of two neighbours;
- identical codes cannot be told apart by any flow: they are one code with the sum of their probabilities, and the
  quantile that is left over, a uniform number independent of the choice so far, picks one (`Codes.members`).

Shape letters: N tokens, V codebook size, C width of a code, W width of a working set of codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from dd.errors import DDError

# Working sets shrink through these widths; a token moves to its own gathered copy of the codes it still needs.
_WIDTHS = (256, 32)
# Numbers in one work array (tokens x codes): about the size of a CPU's cache, and as much as a GPU likes.
_CHUNK = {"cpu": 1 << 19}
_CHUNK_OTHER = 1 << 27
# No two float32 codes of spread 1 are closer than this resolves.
_FAR = 1e9


@dataclass(frozen=True)
class Solver:
    """How the map is integrated. JSON-able with `dataclasses.asdict`, and part of a shard's identity.

    method: "adaptive" chooses each token's steps by its own error; "grid" uses one geometric grid of `steps` values
    of r from `first` to `last` (in units of 1 / spread of the codes) for every token.
    tolerance: error allowed in one step, as a fraction of the spread of y (the noise has spread 1).
    first: the first step, as a fraction of 1 / spread.
    negligible: total weight of the codes that may be dropped.
    max_evaluations: where the adaptive method gives up and compares the two likeliest codes.
    """

    method: Literal["adaptive", "grid"] = "adaptive"
    tolerance: float = 0.001
    first: float = 0.1
    negligible: float = 1e-4
    max_evaluations: int = 100
    steps: int = 32
    last: float = 60.0

    def __post_init__(self) -> None:
        if self.method not in ("adaptive", "grid"):
            raise DDError(f"solver.method must be adaptive or grid, got {self.method!r}")
        for name in ("tolerance", "first", "negligible", "last"):
            if not 0 < getattr(self, name) < math.inf:
                raise DDError(f"solver.{name} must be a positive number, got {getattr(self, name)}")
        if self.negligible > 0.01:
            raise DDError(f"solver.negligible must be at most 0.01 or frequencies are biased, got {self.negligible}")
        if self.max_evaluations < 2 or self.steps < 2:
            raise DDError("solver.max_evaluations and solver.steps must be at least 2")


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

    def merge(self, log_probs: Tensor) -> Tensor:
        """(N, V) log-probabilities of the codes to (N, U) of the distinct vectors."""
        if self.inverse is None:
            return log_probs
        peak = log_probs.amax(-1, keepdim=True)
        sums = log_probs.new_zeros(len(log_probs), len(self.vectors))
        return sums.index_add_(1, self.inverse, (log_probs - peak).exp()).log_() + peak

    def members(self, distinct: Tensor, rest: Tensor, log_probs: Tensor) -> Tensor:
        """Tokens (N,) from distinct vectors (N,), the uniform numbers `rest` (N,) and log_probs (N, V)."""
        if self.inverse is None:
            return distinct
        member = self.inverse == distinct[:, None]  # (N, V)
        shares = torch.where(member, log_probs.double(), -math.inf).softmax(-1).cumsum(-1)
        below = (shares <= rest[:, None]).sum(-1, keepdim=True)
        last = (member & (log_probs > -math.inf)).long().cumsum(-1).argmax(-1, keepdim=True)
        return torch.minimum(below, last).squeeze(-1)


def map_noise(noise: Tensor, log_probs: Tensor, codes: Tensor | Codes, solver: Solver | None = None) -> FlowResult:
    """The code that each noise vector flows to.

    noise: (N, C), any float dtype. log_probs: (N, V), -inf where a code is filtered out; need not be normalised.
    codes: (V, C), or `Codes.prepare` of them where the same codebook is used again and again. All on one device; the
    arithmetic is float32. A token's result does not depend on the others of the batch.
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
    if not (log_probs.amax(-1).abs() < math.inf).all():
        raise DDError("log_probs must leave every token one possible code, got a row of -inf or NaN")
    rows = max(1, _CHUNK.get(noise.device.type, _CHUNK_OTHER) // ready.size)
    parts = [
        _map_chunk(e.float(), p.float(), ready, solver)
        for e, p in zip(noise.split(rows), log_probs.split(rows), strict=True)
    ]
    return FlowResult(torch.cat([p.tokens for p in parts]), torch.cat([p.evaluations for p in parts]))


def posterior(x: Tensor, t: Tensor, log_probs: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """w (N, V) and m (N, C) of the equations above, in the paper's x (N, C) and t (N,) < 1. For reading and tests."""
    r = t / (1 - t)
    weights = _posterior(x / (1 - t)[:, None], r, log_probs, _augment(codes))
    return weights, weights @ codes


def velocity(x: Tensor, t: Tensor, log_probs: Tensor, codes: Tensor) -> Tensor:
    """dx/dt (N, C) of the paper's equation at t (N,) < 1."""
    return (posterior(x, t, log_probs, codes)[1] - x) / (1 - t)[:, None]


def _augment(vectors: Tensor) -> Tensor:
    """(..., W, C) codes with their squared norm as one more column: (..., W, C+1)."""
    return torch.cat([vectors, vectors.square().sum(-1, keepdim=True)], -1)


def _posterior(y: Tensor, r: Tensor, log_probs: Tensor, codes: Tensor) -> Tensor:
    """w (N, W) at y (N, C), r (N,). codes: augmented, (W, C+1) for all tokens or (N, W, C+1) each its own."""
    r = r[:, None]
    left = torch.cat([r * y, -0.5 * r * r], -1)
    if codes.ndim == 2:
        return torch.addmm(log_probs, left, codes.T).softmax(-1)
    return torch.baddbmm(log_probs[:, None], left[:, None], codes.mT).softmax(-1).squeeze(1)


def _mean(weights: Tensor, codes: Tensor) -> Tensor:
    """m (N, C+1): posterior mean of augmented codes."""
    return weights @ codes if codes.ndim == 2 else torch.bmm(weights[:, None], codes).squeeze(1)


@dataclass
class _Course:
    """Where some tokens are on their way. (N, C): y, m = dy/dr there, and m's divided differences over past steps,
    d1 and d2. (N,): r, the next step h, the last two steps h1 and h2, by how much the flow has spread, the number of
    evaluations, and the token's row in the chunk.
    """

    y: Tensor
    m: Tensor
    d1: Tensor
    d2: Tensor
    r: Tensor
    h: Tensor
    h1: Tensor
    h2: Tensor
    growth: Tensor
    evaluations: Tensor
    row: Tensor

    def take(self, rows: Tensor) -> _Course:
        return _Course(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass
class _Work:
    """The codes that some tokens still need. log_probs (N, W); codes augmented, shared (W, C+1) or own (N, W, C+1);
    ids (N, W) index into the distinct vectors, None where shared. weights (N, W): the latest posterior.
    """

    log_probs: Tensor
    codes: Tensor
    ids: Tensor | None
    weights: Tensor

    def take(self, rows: Tensor) -> _Work:
        codes, ids = (self.codes[rows], self.ids[rows]) if self.ids is not None else (self.codes, None)
        return _Work(self.log_probs[rows], codes, ids, self.weights[rows])

    def pick(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (N, n, C), log-probabilities (N, n) and distinct ids (N, n) of some columns (N, n)."""
        if self.ids is None:
            return self.codes[columns, :-1], self.log_probs.gather(1, columns), columns
        vectors = self.codes.take_along_dim(columns[..., None], 1)[..., :-1]
        return vectors, self.log_probs.gather(1, columns), self.ids.gather(1, columns)


def _map_chunk(noise: Tensor, log_probs: Tensor, codes: Codes, solver: Solver) -> FlowResult:
    """Some tokens, through working sets of falling width."""
    size = len(codes.vectors)
    merged = codes.merge(log_probs)
    if merged.shape[1] < size:  # the dummy beside a single code
        merged = torch.cat([merged, torch.full_like(merged, -math.inf)], -1)
    course, work = _start(noise, merged, _augment(codes.vectors), solver)
    tokens = torch.empty(len(noise), dtype=torch.long, device=noise.device)
    rest = torch.empty(len(noise), dtype=torch.float64, device=noise.device)
    evaluations = torch.empty_like(tokens)
    limit = solver.max_evaluations if solver.method == "adaptive" else solver.steps
    for width, evaluated in (*((w, limit) for w in _WIDTHS if w == _WIDTHS[-1] or 4 * w <= size), (2, limit // 2)):
        left = _integrate(course, work, width, evaluated, solver)
        course, work = _join([_shrink(c, w, width, solver) for c, w in left])
    left = _integrate(course, work, 2, limit, solver)  # what is still here are codes closer than 0.005, centred anew
    for c, w in left:
        tokens[c.row], rest[c.row] = _two_codes(c, w)
        evaluations[c.row] = c.evaluations
    return FlowResult(codes.members(tokens, rest, log_probs), evaluations)


def _start(noise: Tensor, log_probs: Tensor, codes: Tensor, solver: Solver) -> tuple[_Course, _Work]:
    """Every token at r = 0, where the posterior is p itself."""
    weights = log_probs.softmax(-1)
    moments = _mean(weights, codes)
    m = moments[:, :-1].contiguous()
    spread = (moments[:, -1] - m.square().sum(-1)).clamp(min=1e-10).sqrt()
    h = solver.first / spread
    far = 1e4 * h  # no past yet: as if m had been constant since long ago
    zero, none = torch.zeros_like(noise), torch.zeros_like(h)
    count = torch.ones_like(h, dtype=torch.long)
    row = torch.arange(len(h), device=h.device)
    course = _Course(noise, m, zero, zero, none, h, far, far, torch.ones_like(h), count, row)
    return course, _Work(log_probs, codes, None, weights)


def _integrate(course: _Course, work: _Work, width: int, limit: int, solver: Solver) -> list[tuple[_Course, _Work]]:
    """Step until every token needs no more than `width` codes, or had `limit` evaluations; each leaves as it is."""
    left = []
    while len(course.row):
        leaves = _needs_at_most(width, work.weights, solver) | (course.evaluations >= limit)
        if leaves.any():
            rows = leaves.nonzero().squeeze(1)
            left.append((course.take(rows), work.take(rows)))
            rows = (~leaves).nonzero().squeeze(1)
            course, work = course.take(rows), work.take(rows)
            if not len(rows):
                break
        course, work = _step(course, work, solver)
    return left


def _needs_at_most(width: int, weights: Tensor, solver: Solver) -> Tensor:
    """(N,) bool: all but `width` codes together have no more than a negligible weight.

    Sum min(w, s) counts s for every weight above s and the whole of those below, in half the time of a real count.
    """
    threshold = solver.negligible / width
    return weights.clamp(max=threshold).sum(-1) <= (width + 0.5) * threshold


def _step(c: _Course, work: _Work, solver: Solver) -> tuple[_Course, _Work]:
    """One step of the third-order Adams-Bashforth method with a fourth-order Adams-Moulton correction, one evaluation.

    In Newton's form on the points r, r - a, r - b (a = h1, b = h1 + h2) the predictor integrates
    m + s d1 + s (s + a) d2 over s in 0..h. The new evaluation m' adds one term of the form s (s+a) (s+b), whose
    integral is `gain` times what the polynomial missed m' by. The size of that correction is the error that steers h.
    """
    h, a, b = c.h[:, None], c.h1[:, None], (c.h1 + c.h2)[:, None]
    half, cubic = 0.5 * h * h, h * h * (h / 3 + a / 2)
    y = torch.addcmul(torch.addcmul(torch.addcmul(c.y, h, c.m), half, c.d1), cubic, c.d2)
    guess = torch.addcmul(torch.addcmul(c.m, h, c.d1), h * (h + a), c.d2)
    r = c.r + c.h
    weights = _posterior(y, r, work.log_probs, work.codes)
    moments = _mean(weights, work.codes)
    m = moments[:, :-1]
    gain = h * (h * h / 4 + h * (a + b) / 3 + a * b / 2) / ((h + a) * (h + b))
    miss = gain * (m - guess)
    # The flow only expands, at the rate r Var_w(c) / C: an error made late moves a token less than one at the start.
    variance = (moments[:, -1] - m.square().sum(-1)).clamp(min=0)
    growth = c.growth * (c.h * r * variance / m.shape[1]).exp()
    d1 = (m - c.m) / h
    d2 = (d1 - c.d1) / (h + a)
    if solver.method == "grid":
        ratio = (solver.last / solver.first) ** (1 / (solver.steps - 1))
        following = r * (ratio - 1)
    else:
        allowed = solver.tolerance * growth.square()
        error = miss.norm(dim=-1)
        following = c.h * (0.9 * (allowed / (error + 1e-12)).pow(0.25)).clamp(0.3, 2.0)
    following = following.clamp(max=_FAR)
    after = _Course(y + miss, m, d1, d2, r, following, c.h, c.h1, growth, c.evaluations + 1, c.row)
    return after, replace(work, weights=weights)


def _shrink(c: _Course, work: _Work, width: int, solver: Solver) -> tuple[_Course, _Work]:
    """Give every token its own copy of the codes that matter to it, centred on the likeliest one.

    Shifting all codes by a and y by r a changes nothing, and differences of close codes then keep all their digits.
    """
    keep = work.weights > solver.negligible / width
    row, column = keep.nonzero().unbind(-1)
    counts = torch.bincount(row, minlength=len(keep))
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    best = work.weights.argmax(-1, keepdim=True)
    columns = best.repeat(1, max(2, int(counts.max())))
    columns[row, slot] = column
    empty = torch.ones_like(columns, dtype=torch.bool)
    empty[row, slot] = False
    vectors, log_probs, ids = work.pick(columns)
    centre = work.pick(best)[0][:, 0]
    course = replace(c, y=c.y - c.r[:, None] * centre, m=c.m - centre)
    weights = work.weights.gather(1, columns).masked_fill(empty, 0)
    return course, _Work(log_probs.masked_fill(empty, -math.inf), _augment(vectors - centre[:, None]), ids, weights)


def _join(parts: list[tuple[_Course, _Work]]) -> tuple[_Course, _Work]:
    """One set of tokens from several whose numbers of codes differ."""
    if len(parts) == 1:
        return parts[0]
    courses, works = zip(*parts, strict=True)
    course = _Course(*(torch.cat([getattr(c, f.name) for c in courses]) for f in fields(_Course)))
    width = max(w.weights.shape[1] for w in works)
    return course, _Work(
        log_probs=_stack([w.log_probs for w in works], width, -math.inf),
        codes=_stack([w.codes for w in works], width),
        ids=_stack([w.ids for w in works], width),
        weights=_stack([w.weights for w in works], width),
    )


def _stack(parts: list[Tensor], width: int, fill: float = 0) -> Tensor:
    """Concatenate along the tokens, with dimension 1 filled up to `width`."""
    shape = (sum(len(p) for p in parts), width, *parts[0].shape[2:])
    out = parts[0].new_full(shape, fill)
    row = 0
    for part in parts:
        out[row : row + len(part), : part.shape[1]] = part
        row += len(part)
    return out


def _two_codes(c: _Course, work: _Work) -> tuple[Tensor, Tensor]:
    """The exact end of the flow between the two likeliest codes a and b: distinct ids (N,), and what is left (N,).

    Along u = (a - b) / |a - b| the coordinate z = y.u has the marginal pa N(r a.u, 1) + pb N(r b.u, 1), and a
    one-dimensional flow keeps quantiles: a is reached exactly if P(Z > z) <= pa, and y - r a ends with the coordinate
    of the same quantile. At the end y - r q is normal and independent of the code q, because y = e + r q is normal
    around r q at every r: its first component gives the uniform number that is left.
    """
    columns = work.weights.topk(2, dim=-1).indices
    vectors, log_probs, ids = work.pick(columns)
    vectors, log_probs, r = vectors.double(), log_probs.double(), c.r.double()[:, None]
    a, between = vectors[:, 0], vectors[:, 0] - vectors[:, 1]
    length = between.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    u = between / length
    from_a = c.y.double() - r * a
    z = (from_a * u).sum(-1, keepdim=True)
    margin = log_probs[:, :1] - log_probs[:, 1:]
    pa, pb = margin.sigmoid(), (-margin).sigmoid()
    above = pa * torch.special.ndtr(-z) + pb * torch.special.ndtr(-z - r * length)  # P(Z > z)
    first = above <= pa
    quantile = torch.where(first, above / pa.clamp(min=1e-300), (above - pa) / pb.clamp(min=1e-300))
    end = from_a + (-torch.special.ndtri(quantile.clamp(1e-300, 1 - 1e-16)) - z) * u
    return torch.where(first[:, 0], ids[:, 0], ids[:, 1]), torch.special.ndtr(end[:, 0])
