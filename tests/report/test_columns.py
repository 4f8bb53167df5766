"""Columns: names, units, digits."""

import pytest

from dd.errors import DDError
from dd.report.columns import ALL as COLUMNS
from dd.report.columns import SHORT, count, parse_columns, seconds, significant


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (23.33, "23.3"), (1234.5, "1234"), (0.01234, "0.0123"), (5.0, "5.00"), (-1.5, "-1.50")],
)
def test_significant_digits(value, text):
    assert significant(value) == text


def test_units():
    assert [seconds(0.0027), seconds(0.105), seconds(12.34)] == ["2.70 ms", "105 ms", "12.3 s"]
    assert [count(950), count(1_650_000), count(2.01e9)] == ["950", "1.65M", "2.01B"]


@pytest.mark.parametrize(
    ("text", "keys"),
    [("short", SHORT), ("all", tuple(c.key for c in COLUMNS)), ("kid, value,kid", ("label", "kid", "value"))],
)
def test_columns_by_name(text: str, keys: tuple[str, ...]):
    assert parse_columns(text) == keys


def test_an_unknown_column_is_refused_with_the_nearest():
    with pytest.raises(DDError, match="--columns: no column 'latency_speed'; did you mean latency_speedup"):
        parse_columns("latency_speed")
    with pytest.raises(DDError, match="no column 'xyz'; there are all, short, label"):
        parse_columns("xyz")
