"""Rates that stages measured of themselves take the place of estimates."""

import json
from pathlib import Path

from dd.config import Experiment
from dd.presets.cost import stage_costs
from dd.presets.devices import card
from dd.presets.rates import measured_rates, rates_folder


def test_a_stage_that_measured_itself_corrects_the_plan(small: Experiment, tmp_path: Path):
    folder = rates_folder(tmp_path, "mine")
    folder.mkdir(parents=True)
    (folder / "distill.json").write_text(json.dumps({"rate": 2.0, "device": "NVIDIA H100 80GB HBM3", "processes": 4}))
    (folder / "trajectories.json").write_text("half a f")
    h100 = card("h100")
    rates = measured_rates(tmp_path, "mine", small, h100)
    assert rates == {"distill": 2.0 * small.distill.pairs_per_update / 4}
    assert measured_rates(tmp_path, "mine", small, card("a100")) == {}
    costs = {cost.stage: cost for cost in stage_costs(small, h100, 8, rates)}
    assert costs["distill"].measured == 8 * rates["distill"]
    assert costs["trajectories"].measured is None
