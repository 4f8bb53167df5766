"""Sizes of VAR's networks from the tensors of a checkpoint, as VAR's training script leaves it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dd.errors import DDError
from dd.models.family import count

# Scales of the published models, by the number of tokens: 256 and 512 pixels.
PUBLISHED = {680: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), 2240: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)}


def transformer(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `VARConfig`. said: settings that win, such as patch_nums where no buffer tells them."""
    classes, width = tensors["class_emb.weight"].shape
    return {
        "depth": count(tensors, "blocks"),
        "embed_dim": width,
        "num_heads": tensors["blocks.0.attn.scale_mul_1H11"].shape[1],
        "num_classes": classes - 1,
        "vocab_size": tensors["head.weight"].shape[0],
        "codebook_dim": tensors["word_embed.weight"].shape[1],
        "patch_nums": list(said.get("patch_nums") or _patch_nums(tensors)),
        "mlp_ratio": tensors["blocks.0.ffn.fc1.weight"].shape[0] / width,
        **said,
    }


def _patch_nums(tensors: Mapping[str, Tensor]) -> list[int]:
    """Sides of the scales: each position's scale stands in the buffer lvl_1L."""
    if "lvl_1L" in tensors:
        _, sizes = tensors["lvl_1L"].flatten().unique(return_counts=True)
        return [math.isqrt(int(size)) for size in sizes]
    tokens = tensors["pos_1LC"].shape[1]
    if tokens not in PUBLISHED:
        raise DDError(
            f"no buffer lvl_1L says which scales make {tokens} tokens: name them (--set patch_nums=1,2,3,...)"
        )
    return list(PUBLISHED[tokens])


def tokenizer(tensors: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `MultiScaleConfig`; the scales are the transformer's."""
    codes, width = tensors["quantize.embedding.weight"].shape
    base = tensors["encoder.conv_in.weight"].shape[0]
    widths = [
        tensors[f"encoder.down.{level}.block.0.conv1.weight"].shape[0]
        for level in range(count(tensors, "encoder.down"))
    ]
    return {
        "codebook_size": codes,
        "codebook_dim": width,
        "ch": base,
        "ch_mult": [one // base for one in widths],
        "num_res_blocks": count(tensors, "encoder.down.0.block"),
        "patch_nums": list(known["patch_nums"]),
        "share_quant_resi": count(tensors, "quantize.quant_resi.qresi_ls"),
    }
