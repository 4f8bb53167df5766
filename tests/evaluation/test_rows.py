"""The rows of results."""

import pytest

from dd.errors import DDError
from dd.evaluation.rows import fill_ratios, make_row


def test_ratios_need_their_rows():
    teacher = make_row(experiment="e", sampler="teacher", value=3.0, seconds_per_image=0.1)
    floor = make_row(experiment="e", sampler="reconstruction", value=1.0)
    one = make_row(experiment="e", sampler="dd", value=5.0, seconds_per_image=0.01)
    none = make_row(experiment="e", sampler="skip")
    rows = fill_ratios([teacher, floor, one, none])
    assert (one["quality_ratio"], one["excess_ratio"], one["speedup"]) == (5 / 3, 2.0, 10.0)
    assert floor["excess_ratio"] is None
    assert [none[key] for key in ("quality_ratio", "excess_ratio", "speedup")] == [None, None, None]
    assert rows[0] is teacher
    assert fill_ratios([make_row(experiment="f", sampler="dd", value=1.0)])[0]["quality_ratio"] is None
    with pytest.raises(DDError, match="kid is nan, which no metric should be"):
        make_row(experiment="e", label="x", kid=float("nan"))
