"""Removing unlikely codes from a distribution. The families differ at the boundary; both ways are here."""

from __future__ import annotations

import torch
from torch import Tensor

from dd.errors import DDError
from dd.models.base import Filters

REMOVED = float("-inf")


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Remove what is smaller than the k-th largest of the last dimension; ties are kept. 0 keeps everything."""
    if k <= 0:
        return logits
    smallest = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest, REMOVED)


def keep_top_p_descending(logits: Tensor, p: float) -> Tensor:
    """LlamaGen's nucleus: from the likeliest down, the code that crosses p is the last one kept. 1 keeps all."""
    if p >= 1:
        return logits
    ordered, index = logits.sort(descending=True, dim=-1)
    beyond = ordered.softmax(-1).cumsum(-1) > p
    drop = torch.cat([torch.zeros_like(beyond[..., :1]), beyond[..., :-1]], -1)
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, index, drop), REMOVED)


def keep_likely(logits: Tensor, filters: Filters) -> Tensor:
    """Temperature, then top-k (clamped to V, ties kept), then top-p descending: LlamaGen's order, and transformers'."""
    logits = logits / max(filters.temperature, 1e-5)
    return keep_top_p_descending(keep_top_k(logits, min(filters.top_k, logits.shape[-1])), filters.top_p)


def keep_top_p_ascending(logits: Tensor, p: float) -> Tensor:
    """VAR's nucleus: from the least likely up, remove while the sum is <= 1 - p; the likeliest stays. 1 keeps all."""
    if p >= 1:
        return logits
    ordered, index = logits.sort(descending=False, dim=-1)
    drop = ordered.softmax(-1).cumsum(-1) <= 1 - p
    drop[..., -1] = False
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, index, drop), REMOVED)


def check_top_k(k: int, codes: int) -> None:
    """Refuse a top_k that exceeds the codebook (VAR does not clamp it)."""
    if k > codes:
        raise DDError(f"top_k: expected at most {codes} (the codebook size), got {k}; lower it or use 0 to keep all")
