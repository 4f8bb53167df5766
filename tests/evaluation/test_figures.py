"""Figures of the results."""

from pathlib import Path

import numpy as np
import pytest

from dd.evaluation import figures
from tests.helpers.report_rows import imagined_rows


def test_figures_are_the_same_bytes_each_time(tmp_path: Path):
    files = [figures.save_figure(figures.quality_figure(imagined_rows()), tmp_path / name) for name in ("a", "b")]
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_curves_of_dvclive_are_read(tmp_path: Path):
    file = tmp_path / "curves" / "plots" / "metrics" / "loss" / "cross_entropy.tsv"
    file.parent.mkdir(parents=True)
    file.write_text("step\tcross_entropy\n50\t5.5\n100\t4.25\n")
    assert figures.read_curves(tmp_path) == {"loss/cross_entropy": [(50, 5.5), (100, 4.25)]}
    assert figures.read_curves(tmp_path / "none") == {}


def test_quality_figure_without_any_value():
    rows = imagined_rows()
    for row in rows:
        row["value"] = None
    assert figures.quality_figure(rows).axes[0].texts[0].get_text() == "nothing measured"


CROWD = (
    ("teacher", "teacher", 49),
    ("dd", "dd 0", 1),
    ("dd", "dd 0,16", 2),
    ("dd", "dd 0,8,16", 3),
    ("dd+teacher", "dd+teacher 0,16 from 12", 6),
    ("dd+teacher", "dd+teacher 0,16 from 8", 10),
    ("skip", "skip-1", 49),
    ("onestep*", "onestep*", 1),
)


def crowd(experiment: str, value: float) -> list[dict]:
    """Eight samplers whose distances lie within a few per cent, above a floor that is as near."""
    keys = {"experiment": experiment, "metric": "FD-toy", "value_error": value / 100}
    rows = [
        {"sampler": s, "label": label, "evaluations": steps, "value": value * (1 + 0.01 * (i % 3)), **keys}
        for i, (s, label, steps) in enumerate(CROWD)
    ]
    floor = {"sampler": "reconstruction", "label": "reconstruction", "evaluations": None, "value": 0.98 * value}
    return [*rows, floor | keys]


def test_labels_of_close_points_can_all_be_read():
    """None lies on another one, on a marker of another point, or outside its panel."""
    figure = figures.quality_figure([*crowd("one", 0.5), *crowd("two", 7.0)])
    figure.draw_without_rendering()
    for axis in figure.axes:
        texts = [text for text in axis.texts if text.get_text()]
        assert {text.get_text() for text in texts} == {label for _, label, _ in CROWD} | {"tokenizer reconstructions"}
        boxes = [text.get_window_extent() for text in texts]
        assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
        assert all(axis.bbox.padded(1).contains(*corner) for box in boxes for corner in (box.min, box.max))
        markers = [axis.transData.transform((line.get_xdata()[0], line.get_ydata()[0])) for line in axis.lines[:8]]
        assert not [(box, marker) for box in boxes for marker in markers if box.contains(*marker)]
        assert len(axis.get_yticks()) >= 3


def test_pareto_line_and_latency_figure():
    assert figures.pareto([(1, 5), (2, 4), (3, 4.5), (0.5, 9), (4, 1)]) == [(0.5, 9), (1, 5), (2, 4), (4, 1)]
    rows = imagined_rows()
    axis = figures.latency_figure(rows).axes[0]
    assert axis.get_xlabel() == "milliseconds per image, in batches"
    assert any("onestep* (23.3)" in text.get_text() for text in axis.texts)
    for row in rows:
        row["latency_seconds"] = row["seconds_per_image"]
    assert figures.latency_figure(rows).axes[0].get_xlabel() == "milliseconds for one image, batch 1"
    assert figures.latency_figure([row | {"seconds_per_image": None, "latency_seconds": None} for row in rows]) is None


def test_students_of_other_noise_have_lines_of_their_own_and_far_ones_squash_nothing():
    rows = imagined_rows()
    more = [rows[3] | {"label": "dd 0 noise 1.1", "value": 5.0}, rows[4] | {"label": "dd 0,16 noise 1.1", "value": 4.4}]
    assert figures._students([*rows, *more]) == [[(1, 5.4), (2, 4.61), (10, 3.6)], [(1, 5.0), (2, 4.4)]]
    axis = figures.quality_figure(rows).axes[0]
    assert figures.far_above(rows) == pytest.approx(16.2)
    assert axis.get_ylim()[1] < 23.3
    assert {text.get_text() for text in axis.texts} >= {"onestep* (23.3)", "teacher"}


def test_panels_stand_in_lines_and_curves_keep_their_gaps():
    many = [row for i in range(5) for row in imagined_rows(f"llamagen-{i}")]
    width, height = figures.quality_figure(many).get_size_inches()
    assert width < 3 * height
    points = [(50, 3.0), (100, 2.0), (150, 1.5), (500, 1.0), (550, 0.9)]
    figure = figures.curves_figure({f"loss/{name}": points for name in "abcdefgh"})
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 8
    assert [bool(np.isnan(x)) for x in lines[0].get_xdata()] == [False, False, False, True, False, False]
