"""Sizes of LlamaGen's networks from the tensors of a checkpoint, as LlamaGen's training scripts leave it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dd.models.family import count

# Heads of the published models, by layers and width; the tensors do not tell. Others: heads of 64.
PUBLISHED = {(24, 3200): 32, (32, 4096): 32}
HEAD, TOKENS = 64, 256


def transformer(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `GPTConfig`. said: settings that win, such as n_head and block_size, which no tensor tells."""
    codes, width = tensors["output.weight"].shape
    layers = count(tensors, "layers")
    heads = PUBLISHED.get((layers, width), max(1, width // HEAD))
    if "freqs_cis" in tensors:  # (positions, head_dim / 2, 2)
        heads = width // (2 * tensors["freqs_cis"].shape[1])
    found: dict[str, Any] = {
        "n_layer": layers,
        "n_head": heads,
        "dim": width,
        "vocab_size": codes,
        "block_size": TOKENS,
        "ffn_multiple": _multiple(width, tensors["layers.0.feed_forward.w1.weight"].shape[0]),
    }
    if "cls_embedding.uncond_embedding" in tensors:
        rows, wide = tensors["cls_embedding.uncond_embedding"].shape
        found |= {"model_type": "t2i", "cls_token_num": rows, "caption_dim": wide}
    else:
        found |= {"num_classes": tensors["cls_embedding.embedding_table.weight"].shape[0] - 1}
    return {**found, **said}


def _multiple(width: int, hidden: int) -> int:
    """What the feed-forward width is rounded up to: the largest usual number that gives it."""
    least = int(2 * 4 * width / 3)
    return next((m for m in (256, 128, 64, 32, 16, 8, 4, 2) if math.ceil(least / m) * m == hidden), 1)


def tokenizer(tensors: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `VQConfig`; the side of the grid is the transformer's."""
    codes, width = tensors["quantize.embedding.weight"].shape
    base = tensors["encoder.conv_in.weight"].shape[0]
    levels = range(count(tensors, "encoder.conv_blocks"))
    widths = [tensors[f"encoder.conv_blocks.{level}.res.0.conv1.weight"].shape[0] for level in levels]
    patch = math.isqrt(tensors["encoder.conv_in.weight"].shape[1] // 3)
    return {
        "codebook_size": codes,
        "codebook_dim": width,
        "z_channels": tensors["quant_conv.weight"].shape[1],
        "ch": base,
        "ch_mult": [one // base for one in widths],
        "num_res_blocks": count(tensors, "encoder.conv_blocks.0.res"),
        "latent": math.isqrt(known["block_size"]),
        "patch": patch,
        "shortcut": any(name.startswith("shortcut.") for name in tensors),
    }
