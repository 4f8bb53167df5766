"""Codes and the nearest code.

The distance is expanded, |x - c|^2 = |x|^2 - 2 x.c + |c|^2, so that the search is one matrix product; the public
code broadcasts instead and holds V x B x L x C numbers at once (22.8 GB at batch 64).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dd.errors import DDError

# Scores held at once: 2**24 float32 numbers are 64 MiB.
MAX_SCORES = 2**24


def nearest_code(x: Tensor, codebook: Tensor, max_scores: int = MAX_SCORES) -> Tensor:
    """The code nearest to each vector in squared distance; the first one on a tie.

    x: (..., C). codebook: (V, C). Returns (...) int64. Never holds more than about `max_scores` distances.
    """
    if x.shape[-1] != codebook.shape[-1]:
        raise DDError(
            f"nearest_code: expected vectors of width {codebook.shape[-1]} (the codebook's), got {x.shape[-1]}; "
            "pass x as (..., C)"
        )
    flat = x.reshape(-1, x.shape[-1])
    rows = max(1, max_scores // codebook.shape[0])
    # Half precision would confuse close codes, so an enclosing autocast is switched off here.
    with torch.autocast(x.device.type, enabled=False):
        half_norms = codebook.float().square().sum(1) / 2  # (V,)
        transposed = codebook.float().t().contiguous()  # (C, V)
        found = [(part.float() @ transposed - half_norms).argmax(1) for part in flat.split(rows)]
    return torch.cat(found).reshape(x.shape[:-1]) if found else flat.new_zeros(x.shape[:-1], dtype=torch.int64)


def replace_some(codes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Code vectors (B, L, C) with a share of them exchanged for what stands at other places of the batch."""
    rows = codes.flatten(0, 1)  # (B L, C)
    others = rows[torch.randint(len(rows), (len(rows),), generator=generator)].detach()
    wrong = torch.rand(len(rows), 1, generator=generator) < share
    return torch.where(wrong, others, rows).view_as(codes)
