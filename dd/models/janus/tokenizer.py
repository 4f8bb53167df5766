"""Janus's tokenizer: transformers' `JanusVQVAE` behind our interface, L = latent * latent tokens in raster order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dd.errors import DDError, install
from dd.models.base import Groups, Tokenizer
from dd.models.codebook import nearest_code


@dataclass(frozen=True)
class JanusVQConfig:
    """Sizes of the tokenizer, under the names of LlamaGen's. `latent` is the side of the code grid."""

    codebook_size: int = 16384
    codebook_dim: int = 8
    z_channels: int = 256
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    latent: int = 24


def modeling() -> Any:
    """transformers' module of Janus, imported only where a model of this family is built."""
    try:
        from transformers.models.janus import modeling_janus
    except ImportError as error:
        raise DDError(f"Janus needs transformers 5 or later ({error}): {install('text')}") from None
    return modeling_janus


class JanusTokenizer(Tokenizer):
    """The parts of a `JanusVQVAE`, so that a checkpoint's names lose nothing but `model.vqmodel.`."""

    def __init__(self, config: JanusVQConfig) -> None:
        super().__init__()
        self.config = config
        self.groups = Groups((1,) * config.latent**2)
        self.image_size = config.latent * 2 ** (len(config.ch_mult) - 1)
        janus = modeling()
        sizes = janus.JanusVQVAEConfig(
            embed_dim=config.codebook_dim,
            num_embeddings=config.codebook_size,
            latent_channels=config.z_channels,
            base_channels=config.ch,
            channel_multiplier=list(config.ch_mult),
            num_res_blocks=config.num_res_blocks,
            num_patches=config.latent,
        )
        vq = janus.JanusVQVAE(sizes)
        self.encoder, self.decoder, self.quantize = vq.encoder, vq.decoder, vq.quantize
        self.quant_conv, self.post_quant_conv = vq.quant_conv, vq.post_quant_conv

    @property
    def codebook(self) -> Tensor:
        return F.normalize(self.quantize.embedding.weight.float(), dim=-1)

    def encode(self, images: Tensor) -> Tensor:
        """Nearest codes on the unit sphere, as Janus was trained; transformers' own `encode` leaves out the norms."""
        self.check_images(images)
        latents = self.quant_conv(self.encoder(images)).float().flatten(2).transpose(1, 2)  # (B, L, C)
        return nearest_code(F.normalize(latents, dim=-1), self.codebook)

    def decode(self, codes: Tensor) -> Tensor:
        side = self.config.latent
        maps = codes.transpose(1, 2).unflatten(2, (side, side)).contiguous()  # (B, C, h, w)
        return self.decoder(self.post_quant_conv(maps))
