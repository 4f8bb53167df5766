"""The plan: arithmetic that adds up, memory that fits, measured rates in the place of estimates."""

import json
from pathlib import Path

import pytest

from dd.cli.scale.plan import find, row
from dd.config import Experiment
from dd.errors import DDError
from dd.presets.cost import StageCost, Term, stage_costs, teacher_terms
from dd.presets.counting import Counts, count
from dd.presets.devices import CARDS, card
from dd.presets.rates import measured_rates, rates_folder
from dd.system import progress as module
from dd.system.progress import keep_rates, progress


@pytest.fixture(scope="module")
def small() -> Experiment:
    return find("var-fashion")


def test_counting_needs_no_weights_and_agrees_with_the_sizes(small: Experiment):
    counts = count(small)
    # Two operations for each weight of the blocks and each token, at least; attention and heads come on top.
    floor = 2 * counts.weights / 4 * counts.tokens * 0.5
    assert floor < counts.teacher < 4 * floor
    assert counts.groups == 5
    assert counts.guided == 2
    assert counts.launches > 20
    assert counts.decoder > 0


def test_hours_follow_from_the_terms_shown():
    cost = StageCost("s", 7200, "pairs", [Term("a", 0.5, ""), Term("b", 0.5, "")], 1e9, overlapped=[Term("c", 0.2, "")])
    assert cost.hours == 2
    many = StageCost("s", 7200, "pairs", cost.terms, 1e9, cards=4, scaling=0.5)
    assert many.hours == 1
    bound = StageCost("s", 7200, "pairs", cost.terms, 1e9, overlapped=[Term("c", 3.0, "")])
    assert bound.hours == 6
    shown = row(StageCost("s", 7200, "pairs", cost.terms, 1e9, measured=4.0), 2, 3.0, 5)
    assert (shown["hours"], shown["cost"], shown["disk_bytes"]) == (0.5, 3.0, 5)
    assert "measured by the stage itself: 4 pairs/s, which counts" in shown["arithmetic"][-1]


def test_a_larger_batch_shares_the_launches_and_the_weights():
    counts = Counts(1e9, 2, 100, 10, 100, 4096, 8, 1e9, 1e6, 1e9, 1, 1e9, 1e9, 1e9, 64)
    (_, few), one = teacher_terms(counts, CARDS["h100"], 1)
    (_, many), all_ = teacher_terms(counts, CARDS["h100"], 64)
    assert one[0].seconds == pytest.approx(64 * all_[0].seconds)
    assert few.seconds > many.seconds


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


def test_loops_keep_their_rate_after_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "_rates", None)
    keep_rates(tmp_path / "rates", device="NVIDIA H100", processes=1)
    with progress(100, unit="steps", label="distill mine") as bar:
        now[0] = 59
        bar.update(3)
        assert not (tmp_path / "rates").exists()
        now[0] = 61
        bar.update(3)
    found = json.loads((tmp_path / "rates" / "distill.json").read_text())
    assert found["rate"] == pytest.approx(6 / 61)
    assert (found["unit"], found["device"], found["seconds"]) == ("steps", "NVIDIA H100", 61)


def test_unknown_devices_are_refused():
    with pytest.raises(DDError, match=r"no device 'h10' in the table; did you mean h100"):
        card("h10")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["var-d16", "llamagen-b"])
def test_presets_fit_a_card_of_80_gigabytes(name: str):
    costs = {cost.stage: cost for cost in stage_costs(find(name), card("h100"))}
    assert list(costs) == ["trajectories", "distill", "evaluate"]
    assert all(cost.memory < 80e9 for cost in costs.values())
    assert 0.5 < costs["trajectories"].hours < 24
    assert 24 < costs["distill"].hours < 24 * 30
