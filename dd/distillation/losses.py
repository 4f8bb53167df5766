"""The paper's loss terms (Distilled Decoding, section 3.3), on pairs (noise, tokens) made by the teacher.

From any of the chosen trajectory points X_t the student predicts the end of the trajectory. Two heads on one trunk:
logits against the tokens (cross-entropy), continuous codes against the code vectors (regression) and, through the
tokenizer's decoder, against the teacher's image (a perceptual distance). Known positions carry no loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dd.models.base import StudentOutput

# Distance (B,) of two batches of images (B, 3, H, W): LPIPS, or an extractor's feature maps.
ImageDistance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; a term of weight 0 is not computed."""

    cross_entropy: float = 1.0
    regression: float = 0.0
    perceptual: float = 0.0
    auxiliary: float = 0.0


def distillation_loss(
    output: StudentOutput,
    tokens: Tensor,
    unknown: Tensor,
    codebook: Tensor,
    weights: LossWeights,
    decode: Callable[[Tensor], Tensor] | None = None,
    distance: ImageDistance | None = None,
) -> dict[str, Tensor]:
    """Weighted loss terms by name; their sum is minimised.

    tokens: (B, L) int64, the end of the trajectory. unknown: (B, L) bool, positions to be predicted.
    decode: code vectors (B, L, C) to images, needed with `distance` for the perceptual term.
    """
    terms: dict[str, Tensor] = {}
    if weights.cross_entropy:
        terms["cross_entropy"] = weights.cross_entropy * cross_entropy(output.logits, tokens, unknown)
    if weights.auxiliary and output.auxiliary:
        auxiliary = [cross_entropy(logits, tokens, unknown) for logits in output.auxiliary]
        terms["auxiliary"] = weights.auxiliary * torch.stack(auxiliary).mean()
    if weights.regression or weights.perceptual:
        target = codebook[tokens]
    if weights.regression:
        errors = (output.codes.float() - target).square().sum(-1)
        terms["regression"] = weights.regression * mean_over(errors, unknown)
    if weights.perceptual:
        if decode is None or distance is None:
            raise ValueError("the perceptual term needs decode and distance")
        with torch.no_grad():
            wanted = decode(target)
        images = decode(torch.where(unknown[..., None], output.codes.float(), target))
        terms["perceptual"] = weights.perceptual * distance(images, wanted).mean()
    return terms


def cross_entropy(logits: Tensor, tokens: Tensor, unknown: Tensor) -> Tensor:
    """Mean over unknown positions (B, L) of the cross-entropy of logits (B, L, V) against tokens (B, L)."""
    losses = F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten(), reduction="none")
    return mean_over(losses.view(tokens.shape), unknown)


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is set; 0 if it is not set anywhere."""
    return (values * mask).sum() / mask.sum().clamp_min(1)
