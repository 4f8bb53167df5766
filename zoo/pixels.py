"""Packed pictures as what networks read, and pictures moved a little."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def to_model(images: np.ndarray | Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [-1, 1]."""
    return torch.tensor(np.asarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def move(images: Tensor, generator: torch.Generator, shift: int, black: bool = False) -> Tensor:
    """Each image (B, 3, H, W) moved by up to `shift` pixels; its own edge (or black) moves in."""
    size = images.shape[-1]
    border = (shift,) * 4
    padded = F.pad(images, border, value=-1.0) if black else F.pad(images, border, mode="replicate")
    moves = torch.randint(0, 2 * shift + 1, (2, len(images)), generator=generator)
    rows = (moves[0, :, None] + torch.arange(size))[:, :, None]  # (B, H, 1)
    columns = (moves[1, :, None] + torch.arange(size))[:, None, :]  # (B, 1, W)
    return padded[torch.arange(len(images))[:, None, None], :, rows, columns].permute(0, 3, 1, 2)


def mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images (B, 3, H, W), chosen by chance, left to right."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)
