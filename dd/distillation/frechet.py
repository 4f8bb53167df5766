"""A loss on what samples look like together: their Frechet distance to other pictures, with its gradient.

Features of the samples and of the pictures are taken as Gaussians. Every feature vector f is asked to go where the
optimal transport between the two takes it,

    T(f) = mu_t + A (f - mu),    A = S^-1/2 (S^1/2 S_t S^1/2)^1/2 S^-1/2,

whose mean squared length is the Frechet distance itself (Dowson and Landau 1982), with its gradient. One batch is far
too small for a covariance: moments are running means, and only the present batch carries gradients.

It complements cross-entropy: where the student cannot predict the trajectory, it takes the likeliest token everywhere,
which makes pictures smooth and alike; this loss compares their distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dd.models.base import StudentOutput

# Added to the variances, as a share of their mean: directions in which nothing varies have no inverse.
RIDGE = 1e-3
# Pixels that pictures are moved by before they are compared.
REACH = 2


@dataclass(frozen=True)
class PictureFeatures:
    """What pictures are compared by: images (B, 3, H, W) to features (B, F). wanted: those (N, F) of `shifted` ones."""

    features: Callable[[Tensor], Tensor]
    wanted: Tensor


def straight_through(output: StudentOutput, codebook: Tensor) -> Tensor:
    """Vectors (B, L, C) of the likeliest tokens, with the gradient of the expected ones (Bengio et al. 2013)."""
    expected = output.logits.float().softmax(-1) @ codebook
    return codebook[output.logits.argmax(-1)] + expected - expected.detach()


def shifted(images: Tensor, first: int | Tensor = 0) -> Tensor:
    """Pictures (B, 3, H, W) moved by up to REACH pixels either way, edges repeated; picture number n by the nth shift.

    A network that pictures are compared by can be pleased by patterns that mean nothing; these rarely survive a shift.
    """
    side, height, width = 2 * REACH + 1, images.shape[2], images.shape[3]
    number = (first + torch.arange(len(images), device=images.device)) % side**2
    rows = torch.arange(height, device=images.device) + (number // side)[:, None] - REACH  # (B, H)
    columns = torch.arange(width, device=images.device) + (number % side)[:, None] - REACH
    picture = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[
        picture, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
    ]
    return moved.permute(0, 3, 1, 2)


class FrechetLoss(nn.Module):
    """Frechet distance () of features (B, F) to those of the wanted pictures (N, F), counted over `memory` samples.

    Its moments are buffers, so that a checkpoint holds them. total: the sum of a tensor over all processes.
    """

    wanted_mean: Tensor
    wanted_covariance: Tensor
    mean: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, wanted: Tensor, memory: int, total: Callable[[Tensor], Tensor] = lambda part: part) -> None:
        super().__init__()
        self.memory, self.total = memory, total
        wanted = wanted.double()
        self.register_buffer("wanted_mean", wanted.mean(0), persistent=False)
        self.register_buffer("wanted_covariance", torch.cov(wanted.T), persistent=False)
        self.register_buffer("mean", torch.zeros_like(self.wanted_mean))
        self.register_buffer("square", torch.zeros_like(self.wanted_covariance))
        self.register_buffer("count", wanted.new_zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) of the present batch to the distance; 0 until a quarter of the memory is filled."""
        self._count(features.detach().double())
        if self.count < self.memory / 4:
            return features.sum() * 0
        covariance = self.square - self.mean[:, None] * self.mean
        a = _transport(covariance, self.wanted_covariance)
        aims = self.wanted_mean + (features.detach().double() - self.mean) @ a.T
        return (features - aims.to(features.dtype)).square().sum(1).mean()

    def _count(self, features: Tensor) -> None:
        """The weight of a sample fades with the samples after it, so that about `memory` of them count."""
        size = self.total(torch.full_like(self.count, len(features)))
        self.count.copy_(self.count * (1 - size / self.memory).clamp_min(0) + size)
        share = size / self.count
        self.mean.lerp_(self.total(features.sum(0)) / size, share)
        self.square.lerp_(self.total(features.T @ features) / size, share)


class MatchingLoss(nn.Module):
    """The student's term: mean over trajectory points `points` of the Frechet distance of the pictures begun there."""

    seen: Tensor

    def __init__(
        self, picture_features: PictureFeatures, points: tuple[int, ...], memory: int, total: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.features, self.points = picture_features.features, points
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.losses = nn.ModuleList(FrechetLoss(picture_features.wanted, memory, total) for _ in points)

    def forward(self, images: Tensor, finished: Tensor) -> Tensor:
        """images (B, 3, H, W), begun at trajectory points finished (B,), to the distance ()."""
        features = self.features(shifted(images, self.seen))
        self.seen += len(images)
        pairs = zip(self.points, self.losses, strict=True)
        return torch.stack([loss(features[finished == point]) for point, loss in pairs]).mean()


def _transport(covariance: Tensor, wanted: Tensor) -> Tensor:
    """A (F, F), the optimal map between Gaussians of these covariances (F, F)."""
    ridge = RIDGE * wanted.diagonal().mean() * torch.eye(len(wanted), dtype=wanted.dtype, device=wanted.device)
    values, vectors = torch.linalg.eigh(covariance + ridge)
    half = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    inverse = (vectors * values.clamp_min(1e-12).rsqrt()) @ vectors.T
    inner, axes = torch.linalg.eigh(half @ (wanted + ridge) @ half)
    return inverse @ (axes * inner.clamp_min(0).sqrt()) @ axes.T @ inverse
