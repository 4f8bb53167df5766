"""What a run would take if its products ran as fast as one large product does on the same device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SIDE, TRIES = {"cpu": 1024, "cuda": 8192}, 5


def product_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two large square matrices, the fastest of some."""
    import torch

    side = SIDE.get(device, SIDE["cpu"])
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    shortest = float("inf")
    for _ in range(TRIES + 1):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        shortest = min(shortest, time.perf_counter() - started)
    return 2 * side**3 / shortest


def flops(run: Callable[[], object]) -> int:
    """Of the matrix products, convolutions and attention of a call."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
