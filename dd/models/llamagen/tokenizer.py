"""LlamaGen's tokenizer (VQ-16 and smaller or larger ones of the same build): images <-> a grid of codes.

State-dict names are those of FoundationVision/LlamaGen. All sizes come from `VQConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

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

# The official buffer `quantize.codebook_used` always has this length: the last codes drawn in training.
USAGE_WINDOW = 65536


@dataclass(frozen=True)
class VQConfig:
    """Sizes of the tokenizer. `latent` is the side of the code grid; images are latent * 2 ** (levels - 1) * patch.

    patch: the networks see patch x patch pixels as one (1 officially), which spares small machines the finest level.
    shortcut: a linear way from each patch of pixels to its code and back, beside the networks (none officially). It
    carries the colours of a patch from the start, which the networks alone learn late.
    border: pixels of black that the networks see around each image (none officially), cut off again behind them.
    """

    codebook_size: int = 16384
    codebook_dim: int = 8
    z_channels: int = 256
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    latent: int = 16
    patch: int = 1
    shortcut: bool = False
    border: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ch_mult", tuple(self.ch_mult))
        if self.ch % GROUPS:
            raise DDError(f"tokenizer ch: expected a multiple of {GROUPS} (GroupNorm), got {self.ch}; round it up")

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.latent * 2 ** (len(self.ch_mult) - 1) * self.patch - 2 * self.border


class Attention(nn.Module):
    """Self-attention between the pixels of one feature map, with separate 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.proj_out(attend_over_pixels(self.q(h), self.k(h), self.v(h)))


_level = partial(Level, "res", Attention)


def _middle(channels: int) -> nn.ModuleList:
    return nn.ModuleList([ResBlock(channels, channels), Attention(channels), ResBlock(channels, channels)])


class Encoder(nn.Module):
    """Images (B, 3, H, W) to features (B, z_channels, h, w)."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.ch, *(config.ch * m for m in config.ch_mult)]
        last = len(config.ch_mult) - 1
        self.patch = config.patch
        self.conv_in = nn.Conv2d(3 * config.patch**2, config.ch, 3, padding=1)
        self.conv_blocks = nn.ModuleList()
        for i in range(last + 1):
            down = None if i == last else Downsample(widths[i + 1])
            self.conv_blocks.append(
                _level(widths[i], widths[i + 1], config.num_res_blocks, attention=i == last, downsample=down)
            )
        self.mid = _middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x)
        for level in self.conv_blocks:
            h = level(h)
        for block in self.mid:
            h = block(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Decoder(nn.Module):
    """Features (B, z_channels, h, w) to images (B, 3, H, W), not clamped. `conv_blocks` is in order of use."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in reversed(config.ch_mult)]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.z_channels, widths[0], 3, padding=1)
        self.mid = _middle(widths[0])
        self.conv_blocks = nn.ModuleList()
        for i in range(last + 1):
            up = None if i == last else Upsample(widths[i])
            self.conv_blocks.append(
                _level(widths[max(i - 1, 0)], widths[i], config.num_res_blocks + 1, attention=i == 0, upsample=up)
            )
        self.norm_out = group_norm(widths[-1])
        self.patch = config.patch
        self.conv_out = nn.Conv2d(widths[-1], 3 * config.patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.conv_in(z)
        for block in self.mid:
            h = block(h)
        for level in self.conv_blocks:
            h = level(h)
        image = self.conv_out(F.silu(self.norm_out(h)))
        return F.pixel_shuffle(image, self.patch) if self.patch > 1 else image


class Shortcut(nn.Module):
    """Linear maps between the pixels behind a code, side x side of them, and the code."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.side = (config.image_size + 2 * config.border) // config.latent
        self.down = nn.Conv2d(3, config.codebook_dim, self.side, stride=self.side)
        self.up = nn.Conv2d(config.codebook_dim, 3 * self.side**2, 1)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, h, w)."""
        return self.down(images)

    def decode(self, codes: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 3, H, W)."""
        return F.pixel_shuffle(self.up(codes), self.side)

    @torch.no_grad()
    def start_from(self, images: Tensor) -> None:
        """Principal components of the patches of images (N, 3, H, W): codes are white, of length 1 on average."""
        patches = F.unfold(images, self.side, stride=self.side).transpose(1, 2).flatten(0, 1)  # (N h w, 3 side side)
        mean, width = patches.mean(0), self.down.out_channels
        values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
        axes = vectors[:, -width:].T  # (C, 3 side side), the largest
        scale = (values[-width:].clamp_min(1e-8) * width).sqrt()[:, None]
        self.down.weight.copy_((axes / scale).view_as(self.down.weight))
        self.up.weight.copy_((axes * scale).T[..., None, None])
        assert self.down.bias is not None
        assert self.up.bias is not None
        self.down.bias.copy_(-(axes @ mean) / scale[:, 0])
        self.up.bias.copy_(mean)


class Codes(nn.Module):
    """The stored codebook; it is L2-normalised whenever it is used."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codebook_size, config.codebook_dim)
        self.register_buffer("codebook_used", torch.zeros(USAGE_WINDOW))


class VQTokenizer(Tokenizer):
    """VQ tokenizer with an L2-normalised codebook: L = latent * latent tokens in raster order, one group each."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.groups = Groups((1,) * config.latent**2)
        self.image_size = config.image_size
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Codes(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.codebook_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.codebook_dim, config.z_channels, 1)
        self.shortcut = Shortcut(config) if config.shortcut else None

    def init_weights(self) -> None:
        """Weights to start training from: codes on the unit sphere, PyTorch's own initialisation elsewhere."""
        nn.init.normal_(self.quantize.embedding.weight)
        self.quantize.embedding.weight.data = F.normalize(self.quantize.embedding.weight.data, dim=-1)

    @property
    def codebook(self) -> Tensor:
        return F.normalize(self.quantize.embedding.weight.float(), dim=-1)

    def encode_continuous(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to latents (B, C, h, w) before quantisation, not normalised."""
        self.check_images(images)
        z = self.quant_conv(self.encoder(add_border(images, self.config.border)))
        return z if self.shortcut is None else z + self.shortcut.encode(images)

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) to codes (B, C, h, w) and tokens (B, L) int64.

        The codes pass gradients straight through to the normalised latents.
        """
        unit = F.normalize(z.float(), dim=1)
        tokens = nearest_code(unit.detach().permute(0, 2, 3, 1).flatten(1, 2), self.codebook)
        codes = self.to_map(self.codebook[tokens])
        return unit + (codes - unit).detach(), tokens

    def to_map(self, codes: Tensor) -> Tensor:
        """Code vectors (B, L, C) to a map (B, C, h, w)."""
        side = self.config.latent
        return codes.transpose(1, 2).reshape(codes.shape[0], codes.shape[2], side, side)

    def decode_map(self, codes: Tensor) -> Tensor:
        """Codes or continuous vectors (B, C, h, w) to images (B, 3, H, W), not clamped."""
        images = self.decoder(self.post_quant_conv(codes))
        images = images if self.shortcut is None else images + self.shortcut.decode(codes)
        return cut_border(images, self.config.border)

    def training_pass(
        self, images: Tensor, quantised: bool = True, replaced: float = 0.0, generator: torch.Generator | None = None
    ) -> TrainingPass:
        z = self.encode_continuous(images)
        unit = F.normalize(z.float(), dim=1)
        codes, chosen = self.quantise(z)
        commitment = (unit - codes.detach()).square().sum(1).mean()
        if replaced:
            assert generator is not None
            codes = self.to_map(replace_some(codes.flatten(2).transpose(1, 2), replaced, generator))
        decoded = self.decode_map(codes if quantised else unit)
        vectors = unit.detach().permute(0, 2, 3, 1).flatten(0, 2)
        return TrainingPass(decoded, vectors, chosen.flatten(), commitment)

    @torch.no_grad()
    def start_from_data(self, images: Tensor) -> None:
        """The shortcut at the principal components of images (N, 3, H, W), and little of the networks."""
        if self.shortcut is None:
            super().start_from_data(images)
            return
        self.shortcut.start_from(images)
        for last in (self.decoder.conv_out, self.quant_conv):
            assert last.bias is not None
            last.weight.mul_(0.1)
            last.bias.zero_()

    def encode(self, images: Tensor) -> Tensor:
        return self.quantise(self.encode_continuous(images))[1]

    def decode(self, codes: Tensor) -> Tensor:
        # A transposed view would make everything after it channels_last, which costs GroupNorm a third more time.
        return self.decode_map(self.to_map(codes).contiguous())
