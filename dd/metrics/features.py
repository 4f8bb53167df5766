"""The interface of feature extractors: uint8 RGB images in, features and logits out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dd.errors import DDError


@dataclass(frozen=True)
class Features:
    """features (B, F) float32; logits (B, classes) float32 or None; spatial (B, F') float32 or None (sFID)."""

    features: Tensor
    logits: Tensor | None = None
    spatial: Tensor | None = None


class MissingWeights(DDError):  # noqa: N818  (reads as what happened, not as a programming error)
    """An extractor's weights are not on this machine; the text says how to get them."""


class Extractor(ABC):
    """Images (B, 3, H, W) uint8 to `Features` on the CPU.

    name and preprocessing say what is computed, weights_sha256 by which weights: a reference made by another one of
    the three is refused. image_size: the only size taken, or None where the extractor resizes.
    """

    name: str
    preprocessing: str
    weights_sha256: str
    feature_width: int
    image_size: int | None = None
    device: torch.device = torch.device("cpu")

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Features:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise DDError(f"expected uint8 images (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        if self.image_size and tuple(images.shape[2:]) != (self.image_size, self.image_size):
            raise DDError(
                f"extractor {self.name} expects images of {self.image_size} x {self.image_size}, got "
                f"{images.shape[2]} x {images.shape[3]}: use the protocol of these images, or resize them"
            )
        return self.extract(images)

    @abstractmethod
    def extract(self, images: Tensor) -> Features:
        """The work itself, on checked images."""
