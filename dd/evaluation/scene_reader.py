"""A reader of scenes: does a picture show what its caption asked for?

The reader is a `SmallClassifier` with one head per fact of every region (dd.datasets.scenes): how many things, which
item, which colour, how large. A picture counts as right only if all of it is, empty regions included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dd.datasets.scenes import HEADS
from dd.errors import DDError
from dd.metrics.classifier import SmallClassifier
from dd.metrics.images import to_uint8
from dd.text.captions import caption_file, scene_facts


def all_right(logits: Tensor, wanted: Tensor, heads: Sequence[int]) -> Tensor:
    """(B,) bool: every fact (B, heads) that is asked for (>= 0) has the largest of its logits (B, sum of heads)."""
    answers = torch.stack([part.argmax(1) for part in logits.split(list(heads), 1)], 1)
    return ((answers == wanted) | (wanted < 0)).all(1)


class SceneReader:
    """A trained reader. wanted: (N, heads) what caption n asks for, in the order of `dd.datasets.scenes.attributes`."""

    def __init__(self, path: Path, wanted: Tensor, device: str | torch.device = "cpu") -> None:
        self.model = SmallClassifier.load(path).to(device)
        self.device, self.wanted = torch.device(device), wanted
        if self.model.config.heads != HEADS or wanted.shape[1] != len(HEADS):
            raise DDError(
                f"{path}: expected a reader of scenes with {len(HEADS)} heads; train it with zoo/shipped/dvc.yaml"
            )

    def reading(self, wanted: Tensor | None = None) -> Callable[[Tensor, int], Tensor]:
        """Which images (B, ...) from number `first` on are right.

        wanted: of other images than those that were drawn from the captions in turn.
        """
        facts = self.wanted if wanted is None else wanted

        def read(images: Tensor, first: int) -> Tensor:
            return self.right(images, facts[(first + torch.arange(len(images))) % len(facts)])

        return read

    @torch.inference_mode()
    def right(self, images: Tensor, wanted: Tensor) -> Tensor:
        """(B,) bool: which images (B, 3, H, W), uint8 or in about [-1, 1], show all that is wanted (B, heads)."""
        pixels = to_uint8(images).to(self.device).float() / 127.5 - 1
        return all_right(self.model(pixels).logits.cpu(), wanted, HEADS)


def open_reader(
    root: Path, experiment: str, protocol: str, device: str | torch.device = "cpu"
) -> tuple[SceneReader | None, str | None]:
    """The reader of a protocol's data set (zoo/<dataset>-reader) for the test captions; or why there is none."""
    path = root / "zoo" / f"{protocol.removeprefix('fd-')}-reader" / "extractor.safetensors"
    if not path.is_file():
        return None, f"needs a reader of these images: train {path.relative_to(root)} with zoo/dvc.yaml"
    _, wanted = scene_facts(caption_file(root / "data" / experiment / "teacher", "test"))
    if wanted is None:
        return None, "the test captions do not say what a reader should find (column 'attributes')"
    return SceneReader(path, wanted, device), None
