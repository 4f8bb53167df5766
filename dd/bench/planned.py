"""What a plan expects of an experiment's stages, to stand beside what was measured."""

from __future__ import annotations

from dd.config import Experiment
from dd.presets.cost import stage_costs
from dd.presets.devices import card


def planned(experiment: Experiment, name: str) -> dict[str, float]:
    """Seconds of each stage on a card."""
    return {cost.stage: 3600 * cost.hours for cost in stage_costs(experiment, card(name))}
