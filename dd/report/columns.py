"""The columns of the results table: their titles, and how their numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from dd.errors import DDError
from dd.system.names import hint


@dataclass(frozen=True)
class Column:
    """A column of the table. better: which end of the scale is marked as best, if any."""

    key: str
    title: str
    show: Callable[[Any], str]
    better: Literal["low", "high"] | None = None


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and without exponent: 0.0123, 6.19, 1230."""
    if value == 0:
        return "0"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:.{decimals}f}"


def seconds(value: float) -> str:
    """A duration per image: 105 ms, 1.20 s."""
    return f"{significant(value * 1000)} ms" if value < 1 else f"{significant(value)} s"


def count(value: float) -> str:
    """1,650,000 as 1.65M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{significant(value / size)}{unit}"
    return str(int(value))


def ratio(value: float) -> str:
    """`2.17×`."""
    return f"{significant(value)}×"


def _whole(value: float) -> str:
    return str(int(value))


def _three(value: float) -> str:
    return f"{value:.3f}"


ALL = (
    Column("label", "sampler", str),
    Column("evaluations", "steps", _whole),
    Column("passes", "passes", _whole),
    Column("value", "distance", significant, "low"),
    Column("quality_ratio", "of teacher", ratio, "low"),
    Column("excess_ratio", "excess", ratio, "low"),
    Column("kid", "KID", lambda v: f"{v:.4f}", "low"),
    Column("inception_score", "IS", significant, "high"),
    Column("precision", "prec.", _three, "high"),
    Column("recall", "recall", _three, "high"),
    Column("diversity", "diversity", _three, "high"),
    Column("paired_distance", "paired", _three, "low"),
    Column("caption_accuracy", "caption acc.", _three, "high"),
    Column("parameters", "params", count),
    Column("latency_seconds", "latency", seconds, "low"),
    Column("latency_speedup", "speed-up, batch 1", ratio, "high"),
    Column("seconds_per_image", "per image", seconds, "low"),
    Column("speedup", "speed-up, batched", ratio, "high"),
)
KEYS = tuple(column.key for column in ALL)
# Sampler, passes, distance over the teacher's, speed-up for one image, speed-up in batches.
SHORT = ("label", "passes", "quality_ratio", "latency_speedup", "speedup")
# What a narrow place shows: as many of these as fit.
_FIRST = ("label", "quality_ratio", "latency_speedup", "speedup", "passes", "value", "diversity", "recall", "precision")
BY_IMPORTANCE = (*_FIRST, *(key for key in KEYS if key not in _FIRST))


def parse_columns(text: str) -> tuple[str, ...]:
    """`all`, `short` or keys with commas between (`label` is always there), as keys. Raises DDError."""
    if text in ("all", "short"):
        return KEYS if text == "all" else SHORT
    wanted = ["label", *(word.strip() for word in text.split(",") if word.strip())]
    for word in wanted:
        if word not in KEYS:
            raise DDError(f"--columns: no column '{word}'; {hint(word, ('all', 'short', *KEYS))}")
    return tuple(dict.fromkeys(wanted))
