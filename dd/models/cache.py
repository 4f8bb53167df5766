"""Keys and values of earlier positions, for decoding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """One layer's part of the cache in one pass: where new keys and values go, and all that are known with them.

    new: (2, rows, H, n, head_dim). known: (2, rows, H, m, head_dim), the last n of them are `new`.
    """

    new: Tensor
    known: Tensor

    def write(self, keys_and_values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (2, rows, H, n, head_dim); returns all keys and all values, (rows, H, m, head_dim) each.

        Decoding has no gradient, also of a teacher that is being trained. It is never compiled (`dd.models.compiled`).
        """
        with torch.no_grad():
            self.new.copy_(keys_and_values)
        k, v = self.known.unbind(0)
        return k, v


class KVCache:
    """Keys and values of all layers, allocated once: kv (layers, 2, rows, H, length, head_dim).

    filled: positions that are known.
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        length: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.kv = torch.empty(layers, 2, rows, heads, length, head_dim, dtype=dtype, device=device)
        self.filled = 0

    def extend(self, count: int) -> list[Window]:
        """`count` more positions: the window of each layer."""
        start, self.filled = self.filled, self.filled + count
        new, known = self.kv[..., start : self.filled, :], self.kv[..., : self.filled, :]
        return [Window(*layer) for layer in zip(new.unbind(0), known.unbind(0), strict=True)]

    def keep(self, rows: int) -> None:
        """Forget all but the first rows, without copying."""
        self.kv = self.kv[:, :, :rows]


def make_cache(layers: int, rows: Tensor, heads: int, length: int, head_dim: int) -> KVCache:
    """A cache for input rows (R, n, D), in the type that attention will run in."""
    kind = rows.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows.dtype
    return KVCache(layers, len(rows), heads, length, head_dim, dtype, rows.device)
