"""Convolutional blocks that the tokenizers of VAR and LlamaGen share (their lineage is VQGAN).

Both use these names in their state dicts: norm1, conv1, norm2, conv2, nin_shortcut, conv.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 32 groups, eps 1e-6."""
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResBlock(nn.Module):
    """(B, c_in, h, w) to (B, c_out, h, w): two norm-SiLU-conv steps and a shortcut."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1 = group_norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = group_norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.nin_shortcut = nn.Conv2d(c_in, c_out, 1)
        self.same_width = c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.same_width else self.nin_shortcut(x))


class Downsample(nn.Module):
    """Halve the resolution; the padding is on the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the resolution: nearest neighbour, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, with an optional change of resolution behind them.

    name: of the list of residual blocks in the state dict, which differs between the families; attend: makes an
    attention block for a width.
    """

    def __init__(
        self,
        name: str,
        attend: Callable[[int], nn.Module],
        c_in: int,
        c_out: int,
        blocks: int,
        attention: bool,
        downsample: Downsample | None = None,
        upsample: Upsample | None = None,
    ) -> None:
        super().__init__()
        residual = nn.ModuleList(ResBlock(c_in if i == 0 else c_out, c_out) for i in range(blocks))
        self.add_module(name, residual)
        self.attn = nn.ModuleList(attend(c_out) for _ in range(blocks if attention else 0))
        self.downsample = downsample
        self.upsample = upsample
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.get_submodule(self.name).children()):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        if self.downsample is not None:
            x = self.downsample(x)
        return x if self.upsample is None else self.upsample(x)


def attend_over_pixels(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Single-head attention between the pixels of feature maps (B, c, h, w), scale c ** -0.5."""
    q_rows, k_rows, v_rows = (m.flatten(2).transpose(1, 2).unsqueeze(1) for m in (q, k, v))  # (B, 1, h*w, c)
    mixed = F.scaled_dot_product_attention(q_rows, k_rows, v_rows)
    return mixed.squeeze(1).transpose(1, 2).reshape(q.shape)


def add_border(images: Tensor, width: int) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] with `width` pixels of black on every side."""
    return F.pad(images, (width,) * 4, value=-1.0) if width else images


def cut_border(images: Tensor, width: int) -> Tensor:
    """Undo `add_border`."""
    return images[..., width:-width, width:-width].contiguous() if width else images
