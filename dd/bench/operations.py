"""The operations that everything rests on, on a device, against the CPU: whether it computes, and computes right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dd.flow import kernel


@dataclass(frozen=True)
class Operation:
    """What came out. problem: why it cannot be relied on; None where it can."""

    name: str
    found: str
    problem: str | None = None


def operations(device: str) -> Iterator[Operation]:
    """A matrix product in float32, attention in bfloat16, the map's fused kernel."""
    yield _compared("matrix product", lambda place: _product(place), device, 1e-5)
    yield _compared("bf16 attention", lambda place: _attention(place), device, 0.03)
    yield _fused(device)


def _compared(name: str, run: Callable[[str], Tensor], device: str, tolerance: float) -> Operation:
    """`run` on the device and on the CPU; the largest difference, as a share of the largest value."""
    expected = run("cpu")
    try:
        run(device)
        started = time.perf_counter()
        got = run(device).cpu()
        seconds = time.perf_counter() - started
    except RuntimeError as error:
        return Operation(
            name, "failed", f"{str(error).strip().splitlines()[0]}: check the driver and the build of torch"
        )
    off = float((got - expected).abs().max() / expected.abs().max())
    found = f"{1e3 * seconds:.1f} ms, differs from the CPU by {off:.1e}"
    if not off <= tolerance:
        return Operation(name, found, f"expected at most {tolerance:g}: do not trust this device")
    return Operation(name, found)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _product(place: str) -> Tensor:
    a = _random(512, 512).to(place)
    return a @ a.T


def _attention(place: str) -> Tensor:
    dtype = torch.float32 if place == "cpu" else torch.bfloat16
    q, k, v = (x.to(place, dtype) for x in _random(3, 2, 4, 128, 64))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).float()


def _fused(device: str) -> Operation:
    if device == "cpu":
        return Operation("fused kernel", "for accelerators only")
    if kernel.usable(torch.zeros(1, 8, device=device)):
        return Operation("fused kernel", "agrees with the plain version")
    return Operation(
        "fused kernel", "not used", "Triton does not run it here (its reason is logged): the map is slower"
    )
