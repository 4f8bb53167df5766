"""Encoded captions, the condition of text-to-image models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Captions:
    """A batch of encoded captions.

    states: (B, T, W) float32 encoder states, or (B, T, 1) int64 text ids for a teacher that reads the text itself; zero
    where padded. mask: (B, T) bool, True where there is text; captions are left-padded, so that the last row always
    holds text.
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


def left_pad(states: Tensor, mask: Tensor) -> Captions:
    """Captions from encoder states (B, T, W) with the text first: the text moves to the end, padding becomes zero.

    mask: (B, T), nonzero where there is text.
    """
    order = mask.bool().to(torch.uint8).argsort(dim=1, stable=True)  # padding first, the text's own order kept
    moved = mask.bool().gather(1, order)
    rows = states.gather(1, order[..., None].expand_as(states))
    return Captions(rows * moved[..., None], moved)


def example_captions(sizes: Any, rows: int, device: torch.device | str = "cpu") -> Captions:
    """Random captions of full length, for timing and for counting memory. sizes: a transformer's configuration."""
    shape, ids = (rows, sizes.cls_token_num, sizes.caption_dim), getattr(sizes, "text_vocab", 0)
    states = torch.randint(ids, shape, device=device) if ids else torch.randn(shape, device=device)
    return Captions(states, torch.ones(shape[:2], dtype=torch.bool, device=device))
