"""The plan: arithmetic that adds up, memory that fits, measured rates in the place of estimates."""

import pytest

from dd.presets import preset_experiment
from dd.presets.cost import evaluations, stage_costs, teacher_terms
from dd.presets.counting import Counts
from dd.presets.devices import CARDS, card

COUNTS = Counts(1e9, 2, 100, 10, tuple(range(0, 101, 10)), 100, 4096, 8, 1e9, 1e6, 1e9, 1, 1e9, 1e9, 1e9, 64)


def test_a_teacher_in_tf32_multiplies_faster():
    plain, rounded = (teacher_terms(COUNTS, CARDS["h100"], 64, precision=kind)[0][0] for kind in ("fp32", "tf32"))
    assert 4 < plain.seconds / rounded.seconds < 6
    assert "494 TFLOP/s TF32" in rounded.arithmetic


def test_a_larger_batch_shares_the_launches_and_the_weights():
    (_, few), one = teacher_terms(COUNTS, CARDS["h100"], 1)
    (_, many), all_ = teacher_terms(COUNTS, CARDS["h100"], 64)
    assert one[0].seconds == pytest.approx(64 * all_[0].seconds)
    assert few.seconds > many.seconds


def test_all_evaluations_but_the_last_stop_early():
    assert evaluations(COUNTS, ()) == 1
    assert evaluations(COUNTS, (3,)) == pytest.approx(1.3)
    assert evaluations(COUNTS, (2, 5)) == pytest.approx(1.7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["var-d16", "llamagen-b"])
def test_presets_fit_a_card_of_80_gigabytes(name: str):
    costs = {cost.stage: cost for cost in stage_costs(preset_experiment(name), card("h100"))}
    assert list(costs) == ["trajectories", "distill", "evaluate"]
    assert all(cost.memory < 80e9 for cost in costs.values())
    assert 0.5 < costs["trajectories"].hours < 24
    assert 24 < costs["distill"].hours < 24 * 30
