"""Encoded captions, the condition of text-to-image models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Captions:
    """A batch of encoded captions.

    states: (B, T, W) float32 encoder states, zero where padded. mask: (B, T) bool, True where there is text;
    captions are left-padded, so that the last row always holds text.
    """

    states: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return self.states.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Captions:
        """The captions of some rows."""
        return Captions(self.states[rows], self.mask[rows])

    def to(self, device: torch.device | str) -> Captions:
        """The same captions on another device."""
        return Captions(self.states.to(device), self.mask.to(device))
