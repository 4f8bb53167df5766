"""A stage's own count of its work (dd/system/progress.py) in words and per cent."""

from typing import Any


def describe(count: dict[str, Any]) -> str:
    """`120 of 400 steps, 3.1 steps/s`."""
    of = f" of {count['total']}" if count.get("total") is not None else ""
    unit = count.get("unit", "")
    rate = f", {count['rate']:.3g} {unit}/s" if count.get("rate") else ""
    return f"{count.get('step', 0)}{of} {unit}{rate}"


def percent(count: dict[str, Any]) -> float | None:
    """0 to 100, None where the total is not known."""
    total = count.get("total")
    return min(100.0, round(100.0 * count.get("step", 0) / total, 1)) if total else None
