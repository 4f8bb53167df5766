"""Progress in words and per cent."""

import pytest

from pipeline.terminal.wording import describe, percent


@pytest.mark.parametrize(
    ("progress", "words", "share"),
    [
        ({"step": 120, "total": 400, "unit": "steps", "rate": 3.0999}, "120 of 400 steps, 3.1 steps/s", 30.0),
        ({"step": 7, "total": None, "unit": "images", "rate": 0}, "7 images", None),
        ({"step": 3, "total": 2, "unit": "shards"}, "3 of 2 shards", 100.0),
        ({}, "0 ", None),
    ],
)
def test_words_and_share(progress: dict, words: str, share: float | None) -> None:
    assert describe(progress) == words
    assert percent(progress) == share
