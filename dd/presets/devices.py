"""Cards that plans are made for: what their makers state, and the share of it that this kind of work reaches."""

from __future__ import annotations

from dataclasses import dataclass

from dd.errors import DDError
from dd.system.names import hint


@dataclass(frozen=True)
class Card:
    """Peaks as in NVIDIA's data sheets, dense. bf16, tf32, fp32: FLOP/s; bandwidth: bytes/s; memory: bytes."""

    name: str
    title: str
    memory: float
    bandwidth: float
    bf16: float
    tf32: float
    fp32: float


CARDS = {
    card.name: card
    for card in (
        Card("h200", "NVIDIA H200 SXM", 141e9, 4.8e12, 989e12, 494e12, 67e12),
        Card("h100", "NVIDIA H100 SXM", 80e9, 3.35e12, 989e12, 494e12, 67e12),
        Card("a100", "NVIDIA A100 SXM 80 GB", 80e9, 2.04e12, 312e12, 156e12, 19.5e12),
        Card("l40s", "NVIDIA L40S", 48e9, 0.864e12, 362e12, 183e12, 91.6e12),
        Card("rtx4090", "NVIDIA GeForce RTX 4090", 24e9, 1.008e12, 165e12, 82.6e12, 82.6e12),
    )
}

# Assumed, until a stage has measured itself: shares of the peaks that large products, convolutions and reads reach, and
# the time that PyTorch needs to launch one operation.
PRODUCTS, PRODUCTS_FP32, CONVOLUTIONS, READS = 0.4, 0.6, 0.25, 0.7
LAUNCH = 6e-6


def card(name: str) -> Card:
    """A card by name. Raises DDError for an unknown one."""
    if name not in CARDS:
        raise DDError(f"no device '{name}' in the table; {hint(name, CARDS)}")
    return CARDS[name]
