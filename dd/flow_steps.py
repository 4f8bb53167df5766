"""Integration of the noise-to-token map (`dd.flow`): steps, working sets of codes, and the exact end.

Names: y, r, m, w as in `dd.flow`. Codes are *augmented*: (..., W, C+1) with their squared norm as the last column, so
that one product gives the posterior's logits and another one gives m and the second moment.
Shape letters: N tokens, W width of a working set, C width of a code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dd import flow_kernel

if TYPE_CHECKING:
    from dd.flow import Solver

# Where float32 logits of codes of spread 1 have lost three digits: what is not decided then is centred anew.
REACH = 200.0
# No two float32 codes of spread 1 are closer than this resolves.
_FAR = 1e9


def augment(vectors: Tensor) -> Tensor:
    """(..., W, C) codes with their squared norm as one more column: (..., W, C+1)."""
    return torch.cat([vectors, vectors.square().sum(-1, keepdim=True)], -1)


def weigh(y: Tensor, r: Tensor, log_probs: Tensor, codes: Tensor) -> Tensor:
    """w (N, W) at y (N, C), r (N, 1). codes: augmented, (W, C+1) for all tokens or (N, W, C+1) each its own."""
    left = _left(y, r)
    if codes.ndim == 2:
        return torch.addmm(log_probs, left, codes.T).softmax(-1)
    return torch.baddbmm(log_probs[:, None], left[:, None], codes.mT).softmax(-1).squeeze(1)


def _left(y: Tensor, r: Tensor) -> Tensor:
    """(N, C+1): its product with augmented codes is r y.c - r^2 |c|^2 / 2."""
    return torch.cat([r * y, -0.5 * r * r], -1)


def mean(weights: Tensor, codes: Tensor) -> Tensor:
    """m (N, C+1): posterior mean of augmented codes."""
    return weights @ codes if codes.ndim == 2 else torch.bmm(weights[:, None], codes).squeeze(1)


SCALARS = ("r", "h", "h1", "h2", "growth", "light", "evaluations", "row")


@dataclass(frozen=True)
class Course:
    """Where some tokens are on their way: one row of `state` (N, 4 C + 8) each, so that tokens move in one operation.

    (N, C): y, m = dy/dr there, and m's divided differences over past steps, d1 and d2. (N, 1): r, the next step h, the
    last two steps h1 and h2, by how much the flow has spread, a measure of how many codes matter (`_light`), the number
    of evaluations, and the token's row in the chunk.
    """

    state: Tensor

    @property
    def vectors(self) -> tuple[Tensor, ...]:
        """y, m, d1, d2."""
        return self.state[:, : -len(SCALARS)].chunk(4, -1)

    def scalar(self, name: str) -> Tensor:
        """One of SCALARS, (N, 1)."""
        column = SCALARS.index(name) - len(SCALARS)
        return self.state[:, column : column + 1 or None]

    def take(self, rows: Tensor) -> Course:
        return Course(self.state[rows])


@dataclass
class Work:
    """The codes that some tokens still need. log_probs (N, W); codes augmented, shared (W, C+1) or own (N, W, C+1);
    ids (N, W) index into the distinct vectors, None where shared. weights (N, W): the latest posterior, None where the
    kernel did not write it.
    """

    log_probs: Tensor
    codes: Tensor
    ids: Tensor | None
    weights: Tensor | None

    def take(self, rows: Tensor) -> Work:
        codes, ids = (self.codes[rows], self.ids[rows]) if self.ids is not None else (self.codes, None)
        weights = None if self.weights is None else self.weights[rows]
        return Work(self.log_probs[rows], codes, ids, weights)

    def posterior(self, course: Course) -> Tensor:
        """w (N, W) where the tokens are."""
        if self.weights is not None:
            return self.weights
        return weigh(course.vectors[0], course.scalar("r"), self.log_probs, self.codes)

    def pick(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (N, n, C), log-probabilities (N, n) and distinct ids (N, n) of some columns (N, n)."""
        if self.ids is None:
            return self.codes[columns, :-1], self.log_probs.gather(1, columns), columns
        vectors = self.codes.take_along_dim(columns[..., None], 1)[..., :-1]
        return vectors, self.log_probs.gather(1, columns), self.ids.gather(1, columns)


def start(noise: Tensor, log_probs: Tensor, codes: Tensor, solver: Solver) -> tuple[Course, Work]:
    """Every token at r = 0, where the posterior is p itself."""
    weights = log_probs.softmax(-1)
    moments = mean(weights, codes)
    m = moments[:, :-1]
    spread = (moments[:, -1:] - m.square().sum(-1, keepdim=True)).clamp(min=1e-10).sqrt()
    h = solver.first / spread
    far = 1e4 * h  # no past yet: as if m had been constant since long ago
    zero, none, one = torch.zeros_like(noise), torch.zeros_like(h), torch.ones_like(h)
    row = torch.arange(len(h), device=h.device, dtype=h.dtype)[:, None]
    course = Course(torch.cat([noise, m, zero, zero, none, h, far, far, one, none, one, row], -1))
    return course, Work(log_probs, codes, None, weights)


def integrate(course: Course, work: Work, width: int, reach: float, solver: Solver) -> list[tuple[Course, Work]]:
    """Step until every token needs no more than `width` codes; each leaves in the state it then is in.

    It leaves before, too, when r has come to `reach`, or when it has had all its evaluations.
    """
    limit = solver.max_evaluations if solver.method == "adaptive" else solver.steps
    threshold = solver.negligible / width
    course.scalar("light")[:] = _light(work.posterior(course), threshold)
    here = torch.ones_like(course.state[:, 0], dtype=torch.bool)
    left = []
    while True:
        small = course.scalar("light") <= (width + 0.5) * threshold
        leaves = (small | (course.scalar("evaluations") >= limit) | (course.scalar("r") > reach)).squeeze(1) & here
        rows = leaves.nonzero().squeeze(1)
        if len(rows):
            left.append((course.take(rows), work.take(rows)))
            here = here & ~leaves
            staying = here.nonzero().squeeze(1)
            if not len(staying):
                return left
            # Those who left go on unheeded until they are a quarter: moving the others costs more than their steps.
            if 4 * len(staying) <= 3 * len(here):
                course, work, here = course.take(staying), work.take(staying), here[staying]
        course, work = step(course, work, threshold, solver)


def _light(weights: Tensor, threshold: float) -> Tensor:
    """(N, 1) sum of min(w, threshold): the number of weights above it, times it, and the whole of those below.

    At most `width` codes matter if this is at most width * threshold: half the time of a real count, and the rest's
    weight is then at most as much.
    """
    return weights.clamp(max=threshold).sum(-1, keepdim=True)


def evaluate(y: Tensor, r: Tensor, work: Work, threshold: float) -> tuple[Tensor, Tensor, Tensor | None]:
    """Moments (N, C+1), light (N, 1) and, unless the fused kernel did it, w (N, W) at y (N, C), r (N, 1)."""
    if work.ids is None and flow_kernel.usable(y):
        moments, light = flow_kernel.posterior_mean(_left(y, r), work.log_probs, work.codes, threshold)
        return moments, light[:, None], None
    weights = weigh(y, r, work.log_probs, work.codes)
    return mean(weights, work.codes), _light(weights, threshold), weights


def step(c: Course, work: Work, threshold: float, solver: Solver) -> tuple[Course, Work]:
    """One step of the third-order Adams-Bashforth method with a fourth-order Adams-Moulton correction, one evaluation.

    In Newton's form on the points r, r - a, r - b (a = h1, b = h1 + h2) the predictor integrates
    m + s d1 + s (s + a) d2 over s in 0..h. The new evaluation m' adds one term of the form s (s+a) (s+b), whose
    integral is `gain` times what the polynomial missed m' by. The size of that correction is the error that steers h.
    """
    y, m, d1, d2 = c.vectors
    r, h, a, h2, growth, _, evaluations, row = c.state[:, -len(SCALARS) :].split(1, -1)
    b = a + h2
    square, ha = h * h, h + a
    y = torch.addcmul(torch.addcmul(torch.addcmul(y, h, m), 0.5 * square, d1), square * (h / 3 + a / 2), d2)
    guess = torch.addcmul(torch.addcmul(m, h, d1), h * ha, d2)
    r = r + h
    moments, light, weights = evaluate(y, r, work, threshold)
    new = moments[:, :-1]
    gain = h * (square / 4 + h * (a + b) / 3 + a * b / 2) / (ha * (h + b))
    miss = gain * (new - guess)
    # The flow only expands, at the rate r Var_w(c) / C: an error made late moves a token less than one at the start.
    variance = (moments[:, -1:] - new.square().sum(-1, keepdim=True)).clamp(min=0)
    growth = growth * (h * r * variance / new.shape[1]).exp()
    new1 = (new - m) / h
    new2 = (new1 - d1) / ha
    if solver.method == "grid":
        ratio = (solver.last / solver.first) ** (1 / (solver.steps - 1))
        following = r * (ratio - 1)
    else:
        allowed = solver.tolerance * growth.square()
        error = miss.norm(dim=-1, keepdim=True)
        following = h * (0.9 * (allowed / (error + 1e-12)).pow(0.25)).clamp(0.3, 2.0)
    following = following.clamp(max=_FAR)
    after = [y + miss, new, new1, new2, r, following, h, a, growth, light, evaluations + 1, row]
    return Course(torch.cat(after, -1)), replace(work, weights=weights)


def shrink(c: Course, work: Work, width: int, solver: Solver) -> tuple[Course, Work]:
    """Give every token its own copy of the codes that matter to it, centred on the likeliest one.

    Shifting all codes by a and y by r a changes nothing, and differences of close codes then keep all their digits.
    """
    posterior = work.posterior(c)
    keep = posterior > solver.negligible / width
    row, column = keep.nonzero().unbind(-1)
    counts = torch.bincount(row, minlength=len(keep))
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    best = posterior.argmax(-1, keepdim=True)
    columns = best.repeat(1, max(2, int(counts.max())))
    columns[row, slot] = column
    empty = torch.ones_like(columns, dtype=torch.bool)
    empty[row, slot] = False
    vectors, log_probs, ids = work.pick(columns)
    centre = work.pick(best)[0][:, 0]
    y, m, d1, d2 = c.vectors
    scalars = c.state[:, -len(SCALARS) :]
    course = Course(torch.cat([y - c.scalar("r") * centre, m - centre, d1, d2, scalars], -1))
    weights = posterior.gather(1, columns).masked_fill(empty, 0)
    return course, Work(log_probs.masked_fill(empty, -math.inf), augment(vectors - centre[:, None]), ids, weights)


def join(parts: list[tuple[Course, Work]]) -> tuple[Course, Work]:
    """One set of tokens from several whose numbers of codes differ."""
    if len(parts) == 1:
        return parts[0]
    courses, works = zip(*parts, strict=True)
    course = Course(torch.cat([c.state for c in courses]))
    width = max(w.log_probs.shape[1] for w in works)
    fills = {"log_probs": -math.inf, "codes": 0.0, "ids": 0, "weights": 0.0}
    shared = works[0].ids is None
    merged = {
        name: getattr(works[0], name)
        if getattr(works[0], name) is None or (shared and name == "codes")
        else _stack([getattr(work, name) for work in works], width, fill)
        for name, fill in fills.items()
    }
    return course, Work(**merged)


def _stack(parts: list[Tensor], width: int, fill: float) -> Tensor:
    """Concatenate along the tokens, with dimension 1 filled up to `width`."""
    shape = (sum(len(p) for p in parts), width, *parts[0].shape[2:])
    out = parts[0].new_full(shape, fill)
    row = 0
    for part in parts:
        out[row : row + len(part), : part.shape[1]] = part
        row += len(part)
    return out


def two_codes(c: Course, work: Work) -> tuple[Tensor, Tensor]:
    """The exact end of the flow between the two likeliest codes a and b: distinct ids (N,), and what is left (N,).

    Along u = (a - b) / |a - b| the coordinate z = y.u has the marginal pa N(r a.u, 1) + pb N(r b.u, 1), and a
    one-dimensional flow keeps quantiles: a is reached exactly if P(Z > z) <= pa, and y - r a ends with the coordinate
    of the same quantile. At the end y - r q is normal and independent of the code q, because y = e + r q is normal
    around r q at every r: its first component gives the uniform number that is left.
    """
    columns = work.posterior(c).topk(2, dim=-1).indices
    vectors, log_probs, ids = work.pick(columns)
    vectors, log_probs, r = vectors.double(), log_probs.double(), c.scalar("r").double()
    a, between = vectors[:, 0], vectors[:, 0] - vectors[:, 1]
    length = between.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    u = between / length
    from_a = c.vectors[0].double() - r * a
    z = (from_a * u).sum(-1, keepdim=True)
    margin = log_probs[:, :1] - log_probs[:, 1:]
    pa, pb = margin.sigmoid(), (-margin).sigmoid()
    above = pa * torch.special.ndtr(-z) + pb * torch.special.ndtr(-z - r * length)  # P(Z > z)
    first = above <= pa
    quantile = torch.where(first, above / pa.clamp(min=1e-300), (above - pa) / pb.clamp(min=1e-300))
    end = from_a + (-torch.special.ndtri(quantile.clamp(1e-300, 1 - 1e-16)) - z) * u
    return torch.where(first[:, 0], ids[:, 0], ids[:, 1]), torch.special.ndtr(end[:, 0])
