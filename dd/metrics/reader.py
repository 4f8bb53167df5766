"""A reader of scenes: does a picture show what its caption asked for?

The reader is a `SmallClassifier` with one head per fact of every region (dd.scenes): how many things, which item, which
colour, how large. A picture counts as right only if all of it is, empty regions included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dd.errors import DDError
from dd.metrics.classifier import SmallClassifier
from dd.scenes import HEADS


def all_right(logits: Tensor, wanted: Tensor, heads: Sequence[int]) -> Tensor:
    """(B,) bool: every fact (B, heads) that is asked for (>= 0) has the largest of its logits (B, sum of heads)."""
    answers = torch.stack([part.argmax(1) for part in logits.split(list(heads), 1)], 1)
    return ((answers == wanted) | (wanted < 0)).all(1)


class SceneReader:
    """A trained reader. wanted: (N, heads) what caption n asks for, in the order of `dd.scenes.attributes`."""

    def __init__(self, path: Path, wanted: Tensor, device: str | torch.device = "cpu") -> None:
        self.model = SmallClassifier.load(path).to(device)
        self.device, self.wanted = torch.device(device), wanted
        if self.model.config.heads != HEADS or wanted.shape[1] != len(HEADS):
            raise DDError(f"{path}: expected a reader of scenes with {len(HEADS)} heads; train it with zoo/dvc.yaml")
        self.right = self.seen = 0

    @torch.inference_mode()
    def read(self, images: Tensor, first: int) -> None:
        """Count uint8 images (B, 3, H, W) whose first one was drawn from caption number `first`."""
        numbers = (first + torch.arange(len(images))) % len(self.wanted)
        logits = self.model(images.to(self.device).float() / 127.5 - 1).logits.cpu()
        self.right += int(all_right(logits, self.wanted[numbers], HEADS).sum())
        self.seen += len(images)

    @property
    def accuracy(self) -> float | None:
        """Share of the pictures so far that show all that was asked; None before the first."""
        return self.right / self.seen if self.seen else None
