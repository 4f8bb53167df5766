"""A loss on how samples of one class spread: their Frechet distance to other pictures of it, with its gradient.

The distance of all classes together (`dd.distillation.frechet`) hardly sees that a student's samples of a class are too
much alike: most of the variance lies between classes. Here every class has its mean, all share a covariance S within
classes, and a feature vector f of class c is asked to go to

    T(f) = mu_c' + A (f - mu_c),    A the optimal map from N(0, S) to N(0, S'),

where primes are of the wanted pictures. Moments are those of the student's last samples, first in, first out; of many
features the directions in which wanted pictures vary most are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dd.distillation.frechet import transport

# Directions that are kept of a set of features.
KEPT = 64


class WithinLoss(nn.Module):
    """Distance () of features (B, F) to those (N, F) of wanted pictures of the same class, in units of their variance.

    memory: samples that its moments span; they are a buffer, so that a checkpoint holds them, and every process has its
    own.
    """

    axes: Tensor
    wanted_means: Tensor
    wanted_covariance: Tensor
    bank: Tensor
    bank_classes: Tensor

    def __init__(self, wanted: Tensor, classes: Tensor, memory: int, kept: int = KEPT) -> None:
        super().__init__()
        wanted = wanted.double()
        self.classes = int(classes.max()) + 1
        _, _, covariance = moments(wanted, classes, self.classes)
        values, vectors = torch.linalg.eigh(covariance)
        axes = vectors[:, -kept:] / values[-kept:].sum().sqrt()
        means, _, covariance = moments(wanted @ axes, classes, self.classes)
        self.register_buffer("axes", axes, persistent=False)
        self.register_buffer("wanted_means", means, persistent=False)
        self.register_buffer("wanted_covariance", covariance, persistent=False)
        self.register_buffer("bank", wanted.new_zeros(memory, axes.shape[1]))
        self.register_buffer("bank_classes", torch.full((memory,), -1, dtype=torch.int64, device=wanted.device))

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """Features (B, F) of classes (B,) to the distance; 0 until a quarter of the memory is filled.

        A class that the memory does not hold yet gives nothing.
        """
        points = features.double() @ self.axes
        self._keep(points.detach(), classes)
        there = self.bank_classes >= 0
        if there.sum() < len(self.bank) / 4:
            return features.sum() * 0
        means, counts, covariance = moments(self.bank[there], self.bank_classes[there], self.classes)
        a = transport(covariance, self.wanted_covariance)
        aims = self.wanted_means[classes] + (points.detach() - means[classes]) @ a.T
        return ((points - aims).square().sum(1) * (counts[classes] > 1)).mean().to(features.dtype)

    def _keep(self, points: Tensor, classes: Tensor) -> None:
        """The newest samples stand last."""
        self.bank = torch.cat([self.bank, points])[len(points) :]
        self.bank_classes = torch.cat([self.bank_classes, classes])[len(points) :]


def moments(features: Tensor, classes: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Means (number, F) and sizes (number,) of classes, and their shared covariance (F, F)."""
    members = torch.nn.functional.one_hot(classes, number).to(features.dtype)  # (N, number)
    counts = members.sum(0)
    means = members.T @ features / counts.clamp_min(1)[:, None]
    rest = features - means[classes]
    return means, counts, rest.T @ rest / (len(features) - (counts > 0).sum()).clamp_min(1)
