"""The plan beside what a bench measures."""

import pytest

from dd.bench.planned import planned
from dd.config import load_experiment
from dd.errors import DDError
from dd.presets.cost import stage_costs
from dd.presets.devices import card


def test_seconds_of_each_stage_are_the_plans_hours():
    experiment = load_experiment("var-fashion")
    costs = stage_costs(experiment, card("h100"))
    assert planned(experiment, "h100") == {cost.stage: 3600 * cost.hours for cost in costs}
    with pytest.raises(DDError, match=r"no device 'h1' in the table; did you mean h100"):
        planned(experiment, "h1")
