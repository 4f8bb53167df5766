"""dd-cli plan: hours that follow from the terms it shows."""

from dd.cli.scale.plan import row
from dd.presets.cost import StageCost, Term


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
