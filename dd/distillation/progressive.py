"""Progressive distillation: a student of one pass learns from a student of several (Salimans and Ho 2022).

The *source* has been distilled from the same teacher already. Its map from noise to tokens is smoother than the
teacher's, and it tells how sure it is at every position. So its tokens take the place of the pairs' tokens, and its
distributions are soft targets (Hinton et al. 2015), at trajectory points t of its own trajectory:

    L = mean over unknown positions of KL(p_source(. | X_t) || p_student(. | X_t)),
    X_t = (s_1 .. s_t, e_t+1 .. e_L),    s = argmax p_source(. | e).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dd.distillation.soft_targets import SoftTargets
from dd.distillation.task import Pairs
from dd.errors import DDError
from dd.models.base import Student
from dd.models.precision import Precision, autocast
from dd.sampling.samplers import perturb


@dataclass(frozen=True)
class _Kept:
    """What the source gives for n pairs. place: of a sample index among them."""

    place: Tensor
    tokens: Tensor  # (n, L) int32
    targets: dict[int, SoftTargets]  # (n, L, k) of each trajectory point


class Source:
    """The student that is distilled further, and what it gives for the pairs at trajectory points.

    Computed for pairs that `keep` has not seen, looked up for all others.
    """

    def __init__(self, student: Student, codebook: Tensor, precision: Precision = "auto") -> None:
        self.student, self.codebook, self.precision = student.eval().requires_grad_(False), codebook, precision
        self.kept: _Kept | None = None

    def follow(self, pairs: Pairs, finished: Tensor) -> tuple[Pairs, SoftTargets]:
        """The pairs with the source's tokens, and its distributions (B, L, k) at their points finished (B,)."""
        if self.kept is None or pairs.indices is None:
            own = replace(pairs, tokens=self._logits(pairs, torch.zeros_like(finished)).argmax(-1))
            return own, SoftTargets.of(self._logits(own, finished))
        rows, points, device = self.kept.place[pairs.indices], finished.tolist(), finished.device
        found = [self.kept.targets[point] for point in points]
        codes = torch.stack([targets.codes[row] for targets, row in zip(found, rows.tolist(), strict=True)])
        log_probs = torch.stack([targets.log_probs[row] for targets, row in zip(found, rows.tolist(), strict=True)])
        own = replace(pairs, tokens=self.kept.tokens[rows].long().to(device))
        return own, SoftTargets(codes.to(device), log_probs.to(device))

    def keep(self, batches: Iterable[Pairs], points: tuple[int, ...]) -> None:
        """Compute what it gives for pairs with sample indices at these points, once and for all."""
        indices: list[Tensor] = []
        tokens: list[Tensor] = []
        targets: dict[int, list[SoftTargets]] = {point: [] for point in points}
        for pairs in batches:
            assert pairs.indices is not None
            zero = torch.zeros(len(pairs), dtype=torch.int64, device=pairs.noise.device)
            first = self._logits(pairs, zero)
            own = replace(pairs, tokens=first.argmax(-1))
            for point in points:
                logits = self._logits(own, zero + point) if point else first
                sparse = SoftTargets.of(logits)
                targets[point].append(SoftTargets(sparse.codes.cpu(), sparse.log_probs.cpu()))
            indices.append(pairs.indices)
            tokens.append(own.tokens.int().cpu())
        seen = torch.cat(indices)
        place = torch.full((int(seen.max()) + 1,), -1)
        place[seen] = torch.arange(len(seen))
        self.kept = _Kept(place, torch.cat(tokens), {point: _join(parts) for point, parts in targets.items()})

    @torch.no_grad()
    def _logits(self, pairs: Pairs, finished: Tensor) -> Tensor:
        """(B, L, V) logits at points finished (B,) of the trajectories that end in the pairs' tokens."""
        x = perturb(self.codebook[pairs.tokens], pairs.noise, finished, self.student.groups)
        with autocast(self.precision, pairs.noise.device.type):
            return self.student(x, finished, pairs.condition).logits


def _join(parts: list[SoftTargets]) -> SoftTargets:
    return SoftTargets(torch.cat([p.codes for p in parts]), torch.cat([p.log_probs for p in parts]))


def start_from(student: Student, source: Student) -> None:
    """Give a student the weights of the source, whose further passes it lacks. Raises DDError where they do not fit."""
    theirs = source.state_dict()
    wrong = [
        name for name, own in student.state_dict().items() if name not in theirs or theirs[name].shape != own.shape
    ]
    if wrong:
        raise DDError(
            f"initialise: source: the source has no {wrong[0]} of the student's shape; give distill.student the "
            "source's options (fewer refinements are fine), or initialise from the teacher"
        )
    student.load_state_dict({name: theirs[name] for name in student.state_dict()})
