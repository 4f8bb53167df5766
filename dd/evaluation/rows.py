"""Rows of results: what one sampler of one experiment reached. Every report is made from them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dd.errors import DDError

log = logging.getLogger(__name__)
Row = dict[str, Any]

# The keys of a row, in the order of tables; null where not measured, never 0.
COLUMNS = (
    "block",  # measured | released (a student of the authors', measured here) | paper
    "experiment",
    "family",
    "teacher",
    "sampler",
    "label",
    "evaluations",
    "tokens",  # of one image
    "codes",  # of the codebook
    "passes",  # of a transformer, one after the other: a student that refines its prediction takes several a step
    "metric",
    "value",
    "value_error",
    "quality_ratio",
    "quality_ratio_error",
    "excess_ratio",
    "excess_ratio_error",
    "kid",
    "kid_error",
    "inception_score",
    "inception_score_error",
    "precision",
    "precision_error",
    "recall",
    "recall_error",
    "diversity",
    "diversity_error",
    "paired_distance",
    "paired_distance_error",
    "caption_accuracy",
    "caption_accuracy_error",
    "images",
    "latency_seconds",  # one image at batch 1, decoding included: median
    "latency_speedup",
    "seconds_per_image",  # in batches, as `timing` says
    "speedup",
    "timing",
    "cpu",  # model and widest instruction set, or the accelerator
    "selected_on",  # what a knob set after training (noise_scale, guidance, temperature) was chosen on
    "parameters",
    "protocol",
    "seed",
    "revision",
    "extractor_sha256",
    "reference_sha256",
    "teacher_sha256",
    "student_sha256",
    "command",
    "missing",
    "notes",
)
FLOORS = ("real", "reconstruction")


def make_row(**values: Any) -> Row:
    """A row with every key of `COLUMNS`; further ones are kept behind them."""
    row: Row = dict.fromkeys(COLUMNS)
    row.update(values)
    for key, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise DDError(f"row {row['experiment']} / {row['label']}: {key} is {value}, which no metric should be")
    row["missing"] = row["missing"] or {}
    row["notes"] = row["notes"] or []
    return row


def fill_ratios(rows: list[Row]) -> list[Row]:
    """Add what is relative to the experiment's teacher: ratios of distances (with errors) and of times."""
    for row in rows:
        same = [other for other in rows if other["experiment"] == row["experiment"]]
        teacher = next((other for other in same if other["sampler"] == "teacher"), None)
        floor = next((other for other in same if other["sampler"] == "reconstruction"), None)
        if teacher is None:
            continue
        row["quality_ratio"] = _ratio(row["value"], teacher["value"])
        row["quality_ratio_error"] = _ratio_error(row, teacher, None)
        if (
            row["sampler"] not in FLOORS
            and floor is not None
            and None not in (row["value"], teacher["value"], floor["value"])
        ):
            row["excess_ratio"] = _ratio(row["value"] - floor["value"], teacher["value"] - floor["value"])
            row["excess_ratio_error"] = _ratio_error(row, teacher, floor)
        row["speedup"] = _ratio(teacher["seconds_per_image"], row["seconds_per_image"])
        row["latency_speedup"] = _ratio(teacher.get("latency_seconds"), row.get("latency_seconds"))
    return rows


def _ratio(above: float | None, below: float | None) -> float | None:
    """above / below, null where either is unknown or the quotient says nothing."""
    if above is None or below is None or below <= 0:
        return None
    return above / below


def _ratio_error(row: Row, teacher: Row, floor: Row | None) -> float | None:
    """Standard error of (row - floor) / (teacher - floor), floor 0 if None, to first order; errors as independent.

    None for the teacher itself, whose ratio is 1 by definition, and where an error is not known.
    """
    known = [row, teacher] if floor is None else [row, teacher, floor]
    if row is teacher or any(one.get(key) is None for one in known for key in ("value", "value_error")):
        return None
    base = 0.0 if floor is None else floor["value"]
    above, below = row["value"] - base, teacher["value"] - base
    if below <= 0:
        return None
    slopes = (1 / below, -above / below**2, (above - below) / below**2)  # by the row, the teacher, the floor
    return math.hypot(*(slope * one["value_error"] for slope, one in zip(slopes, known, strict=False)))


def read_rows(path: Path) -> list[Row]:
    """The rows of a rows.json. Raises DDError when it is none."""
    try:
        return parse_rows(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise DDError(
            f"expected results at {path}, found none: run `dvc repro` or `python -m stages.evaluate`"
        ) from None


def parse_rows(text: str, source: str) -> list[Row]:
    """Rows from JSON text, with every key of `COLUMNS`: older ones may lack some."""
    empty: Row = dict.fromkeys(COLUMNS)
    try:
        rows = json.loads(text)["rows"]
        return [{**empty, **row} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise DDError(f"{source} is damaged ({error}): run the experiment's stage evaluate again") from error


def numbers(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """What `dvc metrics` shows: {label: {metric: number}} without nulls."""
    keys = ("value", "quality_ratio", "excess_ratio", "kid", "inception_score", "precision", "recall", "diversity")
    more = ("paired_distance", "caption_accuracy", "latency_seconds", "latency_speedup", "seconds_per_image", "speedup")
    return {
        row["label"]: {key: round(row[key], 6) for key in (*keys, *more) if row.get(key) is not None} for row in rows
    }
