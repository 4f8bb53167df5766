"""The half of Janus that draws images: a Llama trunk, the way of codes into it, and the head over the codebook.

Every part is a class of transformers, under the checkpoint's own name (without `model.`); the vision tower, which only
reads images, is not built. Positions: T rows of the prompt, left-padded, then the tokens in raster order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dd.models.base import Condition
from dd.models.janus.tokenizer import modeling


@dataclass(frozen=True)
class JanusConfig:
    """Sizes of the transformer, Janus-Pro-1B's by default; the rest is as in transformers' `LlamaConfig`.

    block_size: L, the tokens of one image. cls_token_num: T, rows of a prompt, and caption_dim: one text id a row.
    bos, boi, pad: the ids that begin a prompt, begin an image, and pad.
    """

    model_type = "t2i"  # captions only, as LlamaGen's configuration calls it
    dim: int = 2048
    n_layer: int = 24
    n_head: int = 16
    ffn_dim: int = 5632
    text_vocab: int = 102400
    vocab_size: int = 16384
    codebook_dim: int = 8
    block_size: int = 576
    cls_token_num: int = 128
    caption_dim: int = 1
    bos: int = 100000
    boi: int = 100003
    pad: int = 100002


class Trunk(nn.Module):
    """What teacher and student share: everything but the embedding of tokens."""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.config = config
        janus = modeling()
        from transformers import LlamaConfig

        codes = janus.JanusVQVAEConfig(
            embed_dim=config.codebook_dim,
            num_embeddings=config.vocab_size,
            projection_dim=config.dim,
            image_token_embed_dim=config.dim,
        )
        text = LlamaConfig(
            vocab_size=config.text_vocab,
            hidden_size=config.dim,
            intermediate_size=config.ffn_dim,
            num_hidden_layers=config.n_layer,
            num_attention_heads=config.n_head,
        )
        self.language_model = janus.AutoModel.from_config(text)
        self.generation_aligner = janus.JanusVQVAEAlignerMLP(codes)
        self.generation_head = janus.JanusVQVAEHead(codes)

    def prompt_rows(self, condition: Condition) -> Tensor:
        """(B, T, D): the embedded text tokens of prompts, whose `states` are ids (B, T, 1)."""
        return self.language_model.embed_tokens(condition.states[..., 0])

    def visible(self, condition: Condition, length: int) -> Tensor:
        """(B, length) int64: the rows of a sequence that may be looked at, all but the padding of prompts."""
        return nn.functional.pad(condition.mask.long(), (0, length - condition.mask.shape[1]), value=1)

    def run(self, x: Tensor, visible: Tensor, cache: Any = None) -> Tensor:
        """Input rows (B, n, D), behind those in the cache, to normed hidden rows (B, n, D)."""
        if cache is not None and torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))  # the cache takes keys and values of one type only
        return self.language_model(
            inputs_embeds=x, attention_mask=visible, past_key_values=cache, use_cache=cache is not None
        ).last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        """(B, n, D) to logits (B, n, V) float32."""
        return self.generation_head(hidden).float()


class Transformer(Trunk):
    """The official transformer: a token's own embedding, of the codes' width, goes through the aligner."""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__(config)
        self.generation_embeddings = nn.Embedding(config.vocab_size, config.codebook_dim)

    def embed(self, tokens: Tensor) -> Tensor:
        """Image tokens (B, n) to rows (B, n, D)."""
        return self.generation_aligner(self.generation_embeddings(tokens))
