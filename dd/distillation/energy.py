"""A loss on how samples of one class spread: their energy distance to other pictures of it, with its gradient.

Between samples x, x' of the student and pictures y, y' of the teacher, all of one class (Szekely and Rizzo 2013),

    E = 2 E|x - y| - E|x - x'| - E|y - y'|,

which is 0 for equal distributions alone. The first term pulls, the second pushes samples of a class apart, which is
what a student that draws the likeliest token everywhere lacks (drifting: arXiv 2602.04770; moments: 2603.20155). The
features of all wanted pictures stay in memory, those of the student's last samples in a bank, first in, first out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EnergyLoss(nn.Module):
    """Class-wise energy distance () of features (B, F) to those (N, F) of wanted pictures of the same class.

    In units of the wanted pictures' own mean distance within classes, E|y - y'|. memory: samples that the bank holds;
    it is a buffer, so that a checkpoint holds it, and every process has its own.
    """

    wanted: Tensor
    wanted_classes: Tensor
    within: Tensor
    bank: Tensor
    bank_classes: Tensor

    def __init__(self, wanted: Tensor, classes: Tensor, memory: int) -> None:
        super().__init__()
        self.register_buffer("wanted", wanted, persistent=False)
        self.register_buffer("wanted_classes", classes, persistent=False)
        self.register_buffer("within", _within(wanted, classes), persistent=False)
        self.register_buffer("bank", wanted.new_zeros(memory, wanted.shape[1]))
        self.register_buffer("bank_classes", torch.full((memory,), -1, dtype=torch.int64, device=wanted.device))

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """Features (B, F) of classes (B,) to the distance; 0 until a quarter of the bank is filled.

        x' comes from the bank, whose rows are constants. As x and x' stand for the same samples, the gradient of
        E|x - x'| with respect to them is twice that of the distances to the bank.
        """
        distance = features.sum() * 0
        if (self.bank_classes >= 0).sum() >= len(self.bank) / 4:
            to_wanted, _ = _mean_distance(features, classes, self.wanted, self.wanted_classes)
            to_bank, met = _mean_distance(features, classes, self.bank, self.bank_classes)
            each = 2 * to_wanted - 2 * to_bank + to_bank.detach() - self.within[classes]
            distance = (each * met).mean() / self.within.mean()
        self._keep(features.detach(), classes)
        return distance

    def _keep(self, features: Tensor, classes: Tensor) -> None:
        """The newest samples stand last. Not in place: the backward pass needs the bank as it was."""
        self.bank = torch.cat([self.bank, features.to(self.bank.dtype)])[len(features) :]
        self.bank_classes = torch.cat([self.bank_classes, classes])[len(features) :]


def _mean_distance(features: Tensor, classes: Tensor, others: Tensor, their_classes: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) mean distance to those of `others` (N, F) that have the same class, and whether there are any."""
    same = classes[:, None] == their_classes  # (B, N)
    count = same.sum(1)
    return (torch.cdist(features, others) * same).sum(1) / count.clamp_min(1), count > 0


def _within(features: Tensor, classes: Tensor) -> Tensor:
    """(classes,) mean distance of different pictures of each class; 0 where there are not two."""
    found = features.new_zeros(int(classes.max()) + 1)
    for label in classes.unique():
        own = features[classes == label]
        found[label] = torch.cdist(own, own).sum() / max(1, len(own) * (len(own) - 1))
    return found
