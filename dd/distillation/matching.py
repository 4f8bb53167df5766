"""The student's pictures taken together, against the teacher's: the second phase's terms `frechet` and `within`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd.config import SecondPhaseConfig
from dd.distillation.frechet import FrechetLoss, shifted
from dd.distillation.within import WithinLoss
from dd.metrics.classifier import SmallClassifier

# Parts of a picture, a side, over which a stage's map and the picture itself are averaged for `within`.
GRID, PIXELS = 4, 16


@dataclass(frozen=True)
class PictureFeatures:
    """What pictures are compared by: images (B, 3, H, W) to sets of features (B, F): for `frechet` the first,
    for `within` all others.

    wanted: those (N, F) of `shifted` pictures. classes: (N,) int64 of them, all 0 where there are none.
    """

    features: Callable[[Tensor], tuple[Tensor, ...]]
    wanted: tuple[Tensor, ...]
    classes: Tensor


def features_of(network: SmallClassifier) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Pictures to a network's pooled features, then for `within` to them, its stages on a grid, and coarse pixels."""

    def features(images: Tensor) -> tuple[Tensor, ...]:
        maps = network.stages(images)
        pooled = network.pooled(maps[-1])
        coarse = [F.adaptive_avg_pool2d(found, GRID) for found in maps] + [F.adaptive_avg_pool2d(images, PIXELS)]
        return (pooled, pooled, *(found.flatten(1) for found in coarse))

    return features


class MatchingLoss(nn.Module):
    """The student's terms: means over trajectory points `points` of the distances of the pictures begun there."""

    seen: Tensor

    def __init__(
        self,
        picture_features: PictureFeatures,
        points: tuple[int, ...],
        second: SecondPhaseConfig,
        total: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.features, self.points, self.weights = picture_features.features, points, second
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        first, wanted, classes = picture_features.wanted[0], picture_features.wanted[1:], picture_features.classes
        self.losses = nn.ModuleList()
        if second.frechet:
            self.losses = nn.ModuleList(FrechetLoss(first, second.frechet_memory, total) for _ in points)
        self.withins = nn.ModuleList()
        if second.within:
            self.withins = nn.ModuleList(
                WithinLoss(part, classes, second.within_memory) for _ in points for part in wanted
            )

    def forward(self, images: Tensor, finished: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """images (B, 3, H, W) of classes (B,), begun at trajectory points finished (B,), to weighted terms ()."""
        first, *others = self.features(shifted(images, self.seen))
        self.seen += len(images)
        begun = [finished == point for point in self.points]
        terms = {}
        if self.losses:
            found = [loss(first[rows]) for rows, loss in zip(begun, self.losses, strict=True)]
            terms["frechet"] = self.weights.frechet * torch.stack(found).mean()
        if self.withins:
            sets = [(features[rows], classes[rows]) for rows in begun for features in others]
            found = [loss(*given) for given, loss in zip(sets, self.withins, strict=True)]
            terms["within"] = self.weights.within * torch.stack(found).mean()
        return terms
