"""Keys and values of earlier positions, for decoding."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Keys and values of one layer, allocated once: (rows, H, length, head_dim) each."""

    def __init__(self, rows: int, heads: int, length: int, head_dim: int, dtype: torch.dtype, device: torch.device):
        self.k, self.v = (torch.empty(rows, heads, length, head_dim, dtype=dtype, device=device) for _ in range(2))

    def write(self, start: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store n positions from `start`; returns everything known so far, (rows, H, start + n, head_dim)."""
        end = start + k.shape[2]
        self.k[:, :, start:end], self.v[:, :, start:end] = k, v
        return self.k[:, :, :end], self.v[:, :, :end]

    def keep(self, rows: int) -> None:
        """Forget all but the first rows, without copying."""
        self.k, self.v = self.k[:rows], self.v[:rows]


def make_caches(layers: int, rows: Tensor, heads: int, length: int, head_dim: int) -> list[KVCache]:
    """One cache per layer for input rows (R, n, D), in the type that attention will run in."""
    kind = rows.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows.dtype
    return [KVCache(len(rows), heads, length, head_dim, dtype, rows.device) for _ in range(layers)]
