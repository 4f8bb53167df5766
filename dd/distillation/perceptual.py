"""The perceptual term in chunks: its gradient with respect to the codes, and nothing else, outlives a chunk.

A tokenizer's decoder keeps about 1 GB an image for its backward pass, a student's trunk less. Rows are independent of
each other, d_b = D(decode(z_b), decode(q_b)), so the gradient is taken a few images at a time and kept as

    g_b = dd_b / dz_b,    and backwards    dL/dz_b = (dL/dd_b) g_b,

which is exact. Codes z (B, L, C) are small: 88 KB an image for VAR.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dd.distillation.losses import ImageDistance
from dd.models.base import Tokenizer
from dd.models.precision import Precision, uses_bf16


class _InChunks(torch.autograd.Function):
    """Distances (B,) of codes (B, L, C) to others; their gradient is computed at once and multiplied in backward."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, targets: Tensor, distance: ImageDistance, chunk: int) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        distances, gradients = [], []
        for part, target in zip(codes.detach().split(chunk), targets.detach().split(chunk), strict=True):
            with torch.set_grad_enabled(wanted):
                found = distance(part.requires_grad_(wanted), target)
                if wanted:
                    gradients.append(torch.autograd.grad(found.sum(), part)[0])
            distances.append(found.detach())
        if wanted:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(distances)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return upstream[0][:, None, None] * gradients, None, None, None


def code_distance(decode: Callable[[Tensor], Tensor], distance: ImageDistance, chunk: int) -> ImageDistance:
    """Distance (B,) of code vectors (B, L, C) by the images (B, 3, H, W) that they decode to, `chunk` at a time."""

    def of_codes(codes: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = decode(targets)
        return distance(decode(codes), wanted)

    return lambda codes, targets: _InChunks.apply(codes, targets, of_codes, chunk)


def recomputed(decode: Callable[[Tensor], Tensor], chunk: int) -> Callable[[Tensor], Tensor]:
    """A decoder that keeps its images only; what is inside is computed again in the backward pass, `chunk` at a time.

    For terms that look at all images of a batch together.
    """

    def images(codes: Tensor) -> Tensor:
        return torch.cat([checkpoint(decode, part, use_reentrant=False) for part in codes.split(chunk)])

    return images


def training_decoder(tokenizer: Tokenizer, precision: Precision, device: str) -> Callable[[Tensor], Tensor]:
    """How training decodes: on accelerators that multiply bfloat16 a copy in it, elsewhere the tokenizer itself."""
    if device == "cpu" or not uses_bf16(precision, device):
        return tokenizer.decode
    return bf16_decoder(tokenizer).decode


def bf16_decoder(tokenizer: Tokenizer) -> Tokenizer:
    """A copy of a tokenizer, for decoding only, whose convolutions compute in bfloat16 and channels_last.

    Codes go in and images (B, 3, H, W) come out in float32, as from the tokenizer itself.
    """
    idle = {id(part): nn.Identity() for name, part in tokenizer.named_modules() if name.endswith("encoder")}
    fast = copy.deepcopy(tokenizer, idle).requires_grad_(False)
    for name, part in fast.named_modules():
        if name.rsplit(".", 1)[-1] in ("post_quant_conv", "decoder"):
            part.to(torch.bfloat16, memory_format=torch.channels_last)
            part.register_forward_pre_hook(_narrow)
            part.register_forward_hook(_widen)
    return fast


def _narrow(part: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.to(torch.bfloat16, memory_format=torch.channels_last) for x in inputs)


def _widen(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.float()
