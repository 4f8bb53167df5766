"""Blocks of a table: best values, published numbers, what is missing."""

from dd.report.blocks import best, floor_notes, make_blocks, missing_notes, published_rows
from dd.report.columns import ALL as COLUMNS
from tests.helpers.report_rows import imagined_rows


def test_best_values_are_marked_among_rivals_only():
    rows = imagined_rows()
    by_key = {column.key: column for column in COLUMNS}
    labels = lambda key: {rows[i]["label"] for i in best(rows, by_key[key])}  # noqa: E731
    assert labels("value") == {"dd+teacher 0,16 from 8"}  # neither the floors nor the teacher
    assert labels("precision") == {"dd 0"}
    assert labels("recall") == set()  # all alike
    assert labels("parameters") == set()
    assert best(published_rows(), by_key["value"])


def test_as_many_evaluations_as_the_teacher_win_nothing():
    rows = imagined_rows()
    rows[6] |= {"label": "skip-1", "evaluations": 64, "value": 2.0}
    column = next(column for column in COLUMNS if column.key == "value")
    assert {rows[i]["label"] for i in best(rows, column)} == {"dd+teacher 0,16 from 8"}


def test_what_all_rows_lack_is_said_once():
    rows = [{**row, "missing": {"inception_score": "no classes"}} for row in imagined_rows()]
    rows[1]["missing"] = {"inception_score": "no classes", "kid": "too few"}
    notes = missing_notes(rows)
    assert notes == ["llamagen-toy: no inception_score: no classes", "llamagen-toy, reconstruction: no kid: too few"]


def test_published_numbers_stand_apart_with_their_source():
    blocks = make_blocks([*imagined_rows(), *published_rows(["llamagen"])])
    assert [block.source is None for block in blocks] == [True] + [False] * (len(blocks) - 1)
    assert blocks[0].title == "Measured here: llamagen-toy"
    assert all(block.title.startswith("Published (not measured here)") for block in blocks[1:])
    for block in blocks[1:]:  # never two protocols in one column
        assert len({title for title in block.titles if title.startswith("FID")}) == 1
    assert {row["metric"] for row in published_rows()} == {"FID", "FID-dd", "FID-t2i"}
    assert all(row["source"] for row in published_rows())


def test_a_teacher_below_its_floor_is_said_and_onestep_wins_nothing():
    rows = imagined_rows()
    assert floor_notes(rows) == []
    rows[1]["value"] = 3.0
    assert floor_notes(rows) == [
        "llamagen-toy: the reconstructions (3.00) are farther from the reference than the teacher (2.86): no floor, so "
        "no excess is shown"
    ]
    rows[-1]["diversity"] = 2.0
    (block,) = make_blocks(rows)
    column = block.keys.index("diversity")
    assert [line[0].text for line in block.lines if line[column].best] == ["dd+teacher 0,16 from 8"]
