"""What stages have measured of themselves (`dd.system.progress.keep_rates`), for plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dd.config import Experiment
from dd.presets.devices import Card


def rates_folder(root: Path, name: str) -> Path:
    """Where an experiment's stages leave their rates."""
    return root / "work" / "rates" / name


def measured_rates(root: Path, name: str, experiment: Experiment, card: Card) -> dict[str, float]:
    """Pairs a second of one card, by stage, as far as stages of this experiment have measured them on this card."""
    found: dict[str, float] = {}
    for stage, factor in _pairs_of_a_unit(experiment).items():
        record = _read(rates_folder(root, name) / f"{stage}.json")
        if record is None or not _is(card, str(record.get("device", ""))):
            continue
        # A process that makes shards counts its own ones; a training step is that of all processes.
        shared = int(record.get("processes", 1)) if stage == "distill" else 1
        found[stage] = float(record["rate"]) * factor / shared
    return found


def own_hours(root: Path, name: str, stage: str, experiment: Experiment) -> tuple[float, str] | None:
    """Hours of a whole stage at the rate that it last had in this project, and the device that it ran on."""
    record = _read(rates_folder(root, name) / f"{stage}.json")
    if record is None or not record["rate"]:
        return None
    units: dict[str, float] = {"evaluate": len(experiment.evaluate.samplers)}
    if experiment.trajectories:
        pairs = experiment.trajectories.pairs + experiment.trajectories.held_out
        processes = int(record.get("processes", 1))
        units["trajectories"] = pairs / experiment.trajectories.shard_size / processes
    if experiment.distill:
        units["distill"] = experiment.distill.steps + experiment.distill.second.steps
    return (units[stage] / record["rate"] / 3600, str(record.get("device", "?"))) if stage in units else None


def _pairs_of_a_unit(experiment: Experiment) -> dict[str, float]:
    """Pairs behind one unit of a stage's rate: a shard, a step."""
    factors: dict[str, float] = {}
    if experiment.trajectories:
        factors["trajectories"] = experiment.trajectories.shard_size
    if experiment.distill:
        factors["distill"] = experiment.distill.pairs_per_update
    return factors


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if isinstance(record.get("rate"), int | float) else None
    except (OSError, ValueError, AttributeError):
        return None


def _is(card: Card, device: str) -> bool:
    return card.name in device.lower().replace(" ", "")
