"""What one run of distillation trains on: batches of trajectories, the teacher and the measures beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from dd.distillation.frechet import PictureFeatures
from dd.distillation.losses import ImageDistance
from dd.distillation.soft_targets import SoftTargets
from dd.flow.grid import Solver
from dd.models.base import Condition, Filters, Student, Teacher


@dataclass(frozen=True)
class Pairs:
    """A batch of trajectories: noise (B, L, C) float32, tokens (B, L) int64, condition of size B.

    indices: (B,) int64 sample indices, on the CPU, where they are known.
    """

    noise: Tensor
    tokens: Tensor
    condition: Condition
    indices: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: slice) -> Pairs:
        """Some of them."""
        indices = None if self.indices is None else self.indices[rows]
        return Pairs(self.noise[rows], self.tokens[rows], self.condition[rows], indices)


class PairSource(Protocol):
    """Endless batches in a fixed shuffled order; its state resumes at the exact sample."""

    def __iter__(self) -> Iterator[Pairs]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


# Name -> (step, value) in rising order.
Curves = dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Task:
    """What one run trains on.

    noise_free: zero where nothing is known, which makes the student a set predictor (the baselines).
    distance: image distance for the perceptual term; picture_features: for the Frechet term.
    filters, solver: of the trajectories.
    follow: the pairs that are learnt in place of the teacher's, and their soft targets at trajectory points (B,)
    (`dd.distillation.progressive`).
    probe: further held-out numbers of the averaged student, at a step.
    on_curves: called with the curves so far, after every measurement.
    watched: folder for trackers other than DVCLive, named like the run; None: none.
    """

    teacher: Teacher
    pairs: PairSource
    held_out: Pairs
    folder: Path
    noise_free: bool = False
    distance: ImageDistance | None = None
    picture_features: PictureFeatures | None = None
    filters: Filters = field(default_factory=Filters)
    solver: Solver | None = None
    follow: Callable[[Pairs, Tensor], tuple[Pairs, SoftTargets]] | None = None
    probe: Callable[[Student, int], dict[str, float]] | None = None
    on_curves: Callable[[Curves], None] | None = None
    label: str = "distill"
    watched: Path | None = None
