"""How long a call takes, warm: throughput is measured by its shortest time, latency by its median."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

WARM_UPS, SHORTEST_OF, MEDIAN_OF = 1, 2, 10


def durations(run: Callable[[], object], device: torch.device, repeats: int, warm_ups: int = WARM_UPS) -> list[float]:
    """Seconds of `repeats` calls after `warm_ups` that are not counted; waits for the device before and after each."""
    found = []
    for _ in range(warm_ups + repeats):
        _synchronise(device)
        started = time.perf_counter()
        run()
        _synchronise(device)
        found.append(time.perf_counter() - started)
    return found[warm_ups:]


def shortest_seconds(run: Callable[[], object], device: torch.device, repeats: int = SHORTEST_OF) -> float:
    """The shortest of some calls: what the machine can do when nothing disturbs it."""
    return min(durations(run, device, repeats))


def median_seconds(run: Callable[[], object], device: torch.device, repeats: int = MEDIAN_OF) -> float:
    """The median of some calls: what a user waits for."""
    return statistics.median(durations(run, device, repeats, warm_ups=2))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
