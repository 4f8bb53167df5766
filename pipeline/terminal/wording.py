"""A stage's progress (dd/system/progress.py) in words and per cent."""

from typing import Any


def describe(progress: dict[str, Any]) -> str:
    """`120 of 400 steps, 3.1 steps/s`."""
    of = f" of {progress['total']}" if progress.get("total") is not None else ""
    unit = progress.get("unit", "")
    rate = f", {progress['rate']:.3g} {unit}/s" if progress.get("rate") else ""
    return f"{progress.get('step', 0)}{of} {unit}{rate}"


def percent(progress: dict[str, Any]) -> float | None:
    """0 to 100, None where the total is not known."""
    total = progress.get("total")
    return min(100.0, round(100.0 * progress.get("step", 0) / total, 1)) if total else None
