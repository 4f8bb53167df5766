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
    factors: dict[str, float] = {}
    if experiment.trajectories:
        factors["trajectories"] = experiment.trajectories.shard_size
    if experiment.distill:
        factors["distill"] = experiment.distill.pairs_per_update
    for stage, factor in factors.items():
        record = _read(rates_folder(root, name) / f"{stage}.json")
        if record is None or not _is(card, str(record.get("device", ""))):
            continue
        # A process that makes shards counts its own ones; a training step is that of all processes.
        shared = int(record.get("processes", 1)) if stage == "distill" else 1
        found[stage] = float(record["rate"]) * factor / shared
    return found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if isinstance(record.get("rate"), int | float) else None
    except (OSError, ValueError, AttributeError):
        return None


def _is(card: Card, device: str) -> bool:
    return card.name in device.lower().replace(" ", "")
