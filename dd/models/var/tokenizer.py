"""VAR's tokenizer: a residual VQ-VAE that writes an image as token maps of growing resolution.

Each scale adds its code map, resized to the full grid and smoothed by a small convolution phi, to the running
feature map f_hat. State-dict names are those of FoundationVision/VAR. All sizes come from `MultiScaleConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd.errors import DDError
from dd.models.base import Groups, Tokenizer, TrainingPass
from dd.models.codebook import nearest_code, replace_some
from dd.models.vqgan import (
    GROUPS,
    Downsample,
    Level,
    ResBlock,
    Upsample,
    add_border,
    attend_over_pixels,
    cut_border,
    group_norm,
)


@dataclass(frozen=True)
class MultiScaleConfig:
    """Sizes of the tokenizer. The last scale's code grid is the latent; images are 2 ** (levels - 1) * patch wider.

    patch: the networks see patch x patch pixels as one (1 officially), which spares small machines the finest level.
    border: pixels of black that the networks see around each image (none officially), cut off again behind them.
    """

    codebook_size: int = 4096
    codebook_dim: int = 32
    ch: int = 160
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    patch_nums: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    share_quant_resi: int = 4
    patch: int = 1
    border: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ch_mult", tuple(self.ch_mult))
        object.__setattr__(self, "patch_nums", tuple(self.patch_nums))
        if self.ch % GROUPS:
            raise DDError(f"tokenizer ch: expected a multiple of {GROUPS} (GroupNorm), got {self.ch}; round it up")
        if self.share_quant_resi < 2:
            raise DDError(f"share_quant_resi: expected 2 or more, got {self.share_quant_resi}; the official value is 4")

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.patch_nums[-1] * 2 ** (len(self.ch_mult) - 1) * self.patch - 2 * self.border


def phi_indices(scales: int, shared: int) -> list[int]:
    """Which of the `shared` phi convolutions each scale uses.

    Exact ties (scales 2 and 7 of 10) are decided by float64 rounding, so the expression must stay as it is.
    """
    margin = 1 / 3 / shared if shared == 4 else 1 / 2 / shared
    ticks = np.linspace(margin, 1 - margin, shared)
    places = [k / (scales - 1) if scales > 1 else 0.0 for k in range(scales)]
    return [int(np.argmin(np.abs(ticks - place))) for place in places]


class Phi(nn.Conv2d):
    """h / 2 + conv3x3(h) / 2."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return h * 0.5 + super().forward(h) * 0.5


class PhiList(nn.Module):
    """The shared phi convolutions."""

    def __init__(self, channels: int, shared: int) -> None:
        super().__init__()
        self.qresi_ls = nn.ModuleList(Phi(channels) for _ in range(shared))


class MultiScaleQuantizer(nn.Module):
    """Feature maps (B, C, h, w) to one code map per scale and back. Runs in float32 whatever autocast says."""

    ema_vocab_hit_SV: Tensor  # noqa: N815

    def __init__(self, config: MultiScaleConfig) -> None:
        super().__init__()
        self.patch_nums = config.patch_nums
        self.embedding = nn.Embedding(config.codebook_size, config.codebook_dim)
        self.quant_resi = PhiList(config.codebook_dim, config.share_quant_resi)
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(len(config.patch_nums), config.codebook_size))
        self.phi_index = phi_indices(len(config.patch_nums), config.share_quant_resi)

    @property
    def last(self) -> int:
        """Index of the last scale."""
        return len(self.patch_nums) - 1

    def contribution(self, codes: Tensor, scale: int) -> Tensor:
        """What code vectors (B, n, C) of one scale add to f_hat: (B, C, h, w)."""
        side, full = self.patch_nums[scale], self.patch_nums[-1]
        with torch.autocast(codes.device.type, enabled=False):
            h = codes.float().transpose(1, 2).reshape(len(codes), -1, side, side)
            if scale != self.last:
                h = F.interpolate(h, size=(full, full), mode="bicubic")
            return self.quant_resi.qresi_ls[self.phi_index[scale]](h.contiguous())

    def shrink(self, f: Tensor, scale: int) -> Tensor:
        """A full map (B, C, h, w) at the resolution of a scale: (B, C, n, n)."""
        side = self.patch_nums[scale]
        return f if scale == self.last else F.interpolate(f, size=(side, side), mode="area")

    def quantise(self, f: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Residual quantisation of f (B, C, h, w), h = w = the last scale's side.

        Returns per scale the tokens (B, n) int64 and f_hat (B, C, h, w) after it. Gradients reach the codebook and
        phi through f_hat, not f: a trainer adds its own straight-through term f + (f_hat - f).detach().
        """
        side = self.patch_nums[-1]
        if f.shape[2:] != (side, side):
            raise DDError(f"quantise: expected a {side}x{side} map, got {tuple(f.shape)}; check the image size")
        residual = f.detach().float()
        f_hat = torch.zeros_like(residual)
        tokens, maps = [], []
        for scale in range(len(self.patch_nums)):
            vectors = self.shrink(residual, scale).flatten(2).transpose(1, 2)  # (B, n, C)
            tokens.append(nearest_code(vectors, self.embedding.weight.detach()))
            h = self.contribution(self.embedding(tokens[-1]), scale)
            f_hat = f_hat + h
            residual = residual - h.detach()
            maps.append(f_hat)
        return tokens, maps

    def accumulate(self, codes: list[Tensor]) -> list[Tensor]:
        """f_hat (B, C, h, w) after each of the leading scales, from their code vectors (B, n, C)."""
        maps: list[Tensor] = []
        for scale, part in enumerate(codes):
            h = self.contribution(part, scale)
            maps.append(maps[-1] + h if maps else h)
        return maps

    def next_rows(self, f_hat: Tensor, scale: int) -> Tensor:
        """What the transformer reads to draw `scale`: f_hat at that resolution as rows (B, n, C)."""
        return F.interpolate(f_hat, size=(self.patch_nums[scale],) * 2, mode="area").flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention between the pixels of one feature map, with one fused 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, 1)
        return x + self.proj_out(attend_over_pixels(q, k, v))


_level = partial(Level, "block", Attention)


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = ResBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Images (B, 3, H, W) to features (B, C, h, w)."""

    def __init__(self, config: MultiScaleConfig) -> None:
        super().__init__()
        widths = [config.ch, *(config.ch * m for m in config.ch_mult)]
        last = len(config.ch_mult) - 1
        self.patch = config.patch
        self.conv_in = nn.Conv2d(3 * config.patch**2, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for i in range(last + 1):
            down = None if i == last else Downsample(widths[i + 1])
            self.down.append(_level(widths[i], widths[i + 1], config.num_res_blocks, i == last, downsample=down))
        self.mid = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.codebook_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Features (B, C, h, w) to images (B, 3, H, W), not clamped. `up` is indexed by level: the last is used first."""

    def __init__(self, config: MultiScaleConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.codebook_dim, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList()
        for i in range(last + 1):
            up = None if i == 0 else Upsample(widths[i])
            c_in = widths[min(i + 1, last)]
            self.up.append(_level(c_in, widths[i], config.num_res_blocks + 1, i == last, upsample=up))
        self.norm_out = group_norm(widths[0])
        self.patch = config.patch
        self.conv_out = nn.Conv2d(widths[0], 3 * config.patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        image = self.conv_out(F.silu(self.norm_out(h)))
        return F.pixel_shuffle(image, self.patch) if self.patch > 1 else image


class MultiScaleTokenizer(Tokenizer):
    """Multi-scale residual VQ-VAE: one group of n * n tokens per scale, all scales in one sequence."""

    def __init__(self, config: MultiScaleConfig) -> None:
        super().__init__()
        self.config = config
        self.groups = Groups(tuple(side * side for side in config.patch_nums))
        self.image_size = config.image_size
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = MultiScaleQuantizer(config)
        self.quant_conv = nn.Conv2d(config.codebook_dim, config.codebook_dim, 3, padding=1)
        self.post_quant_conv = nn.Conv2d(config.codebook_dim, config.codebook_dim, 3, padding=1)

    def init_weights(self) -> None:
        """Weights to start training from: normal codes, PyTorch's own initialisation elsewhere."""
        nn.init.normal_(self.quantize.embedding.weight)

    @property
    def codebook(self) -> Tensor:
        return self.quantize.embedding.weight.float()

    def encode_continuous(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to the feature map f (B, C, h, w) before quantisation."""
        self.check_images(images)
        return self.quant_conv(self.encoder(add_border(images, self.config.border)))

    def training_pass(
        self, images: Tensor, quantised: bool = True, replaced: float = 0.0, generator: torch.Generator | None = None
    ) -> TrainingPass:
        if not quantised:
            raise DDError("continuous: a multi-scale tokenizer always trains on its own codes; leave it out")
        f, quantizer = self.encode_continuous(images), self.quantize
        tokens, maps = quantizer.quantise(f)
        residuals = [f.detach(), *(f.detach() - f_hat.detach() for f_hat in maps[:-1])]
        rows = [quantizer.shrink(r, k).flatten(2).transpose(1, 2).flatten(0, 1) for k, r in enumerate(residuals)]
        f_hat = given = maps[-1]
        if replaced:
            assert generator is not None
            given = self._with_wrong(tokens, replaced, generator)
        decoded = self.decode_map(f + (given - f).detach())
        # phi learns to bring f_hat close to f after every scale, f is held to what can be written. Both errors are in
        # units of f's own variance, and that is held near 1: otherwise f, its codes and phi grow without end.
        power = f.detach().square().mean()
        fit_error = torch.stack([(m - f.detach()).square().mean() for m in maps]).mean() / power
        commitment = (f - f_hat.detach()).square().mean() / power
        commitment = commitment + fit_error + (f.square().mean() - 1).square()
        return TrainingPass(decoded, torch.cat(rows), torch.cat([t.flatten() for t in tokens]), commitment)

    def _with_wrong(self, tokens: list[Tensor], share: float, generator: torch.Generator) -> Tensor:
        """f_hat of tokens (B, n) per scale with some of them wrong: none of the first scale, `share` of the last.

        A wrong token of a coarse scale changes the whole image, and a student rarely predicts one.
        """
        shares = torch.linspace(0, share, len(tokens)).tolist()
        codes = [
            replace_some(self.quantize.embedding(chosen), wrong, generator)
            for chosen, wrong in zip(tokens, shares, strict=True)
        ]
        return self.quantize.accumulate(codes)[-1]

    def encode(self, images: Tensor) -> Tensor:
        return torch.cat(self.quantize.quantise(self.encode_continuous(images))[0], 1)

    def split(self, sequence: Tensor) -> list[Tensor]:
        """A sequence (B, n, ...) that ends with a whole scale, as one part per scale."""
        sizes = list(self.groups.sizes[: self.groups.starts.index(sequence.shape[1])])
        return list(sequence.split(sizes, 1)) if sizes else []

    def decode_map(self, f_hat: Tensor) -> Tensor:
        """Feature maps (B, C, h, w) to images (B, 3, H, W), not clamped."""
        return cut_border(self.decoder(self.post_quant_conv(f_hat)), self.config.border)

    def decode(self, codes: Tensor) -> Tensor:
        return self.decode_map(self.quantize.accumulate(self.split(codes))[-1]).clamp(-1, 1)

    def transformer_input(self, codes: Tensor) -> Tensor:
        """Code vectors (B, n, C) of all or the leading scales to the rows that the scales after the first read.

        All K scales give the L - 1 rows of scales 2..K; fewer give the rows of one scale more than they are.
        """
        parts = self.split(codes)[: len(self.groups) - 1]
        maps = self.quantize.accumulate(parts)
        rows = [self.quantize.next_rows(f_hat, scale + 1) for scale, f_hat in enumerate(maps)]
        return torch.cat(rows, 1) if rows else codes[:, :0].float()
