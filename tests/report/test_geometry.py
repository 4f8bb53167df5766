"""The plot of ratio and speed-ups against tokens and codes."""

from dd.evaluation.rows import make_row
from dd.report.geometry import PANELS, geometry_figure, geometry_rows

STUDENTS = [
    make_row(experiment=name, sampler="dd", label="dd", evaluations=steps, tokens=tokens, codes=codes)
    | {"quality_ratio": 1.5 + steps / 10, "speedup": 2.0, "latency_speedup": None}
    for name, tokens, codes in (("wide", 256, 1024), ("small", 49, 32))
    for steps in (1, 2)
]


def test_rows_without_a_geometry_and_other_samplers_are_left_out():
    old = make_row(experiment="old", sampler="dd", label="dd 0", evaluations=1, quality_ratio=2.0)
    teacher = STUDENTS[0] | {"sampler": "teacher", "evaluations": 256}
    assert [row["experiment"] for row in geometry_rows([*STUDENTS, old, teacher])] == ["small"] * 2 + ["wide"] * 2


def test_each_panel_shows_what_was_measured_and_says_what_was_not():
    figure = geometry_figure(STUDENTS)
    panels = dict(zip(PANELS, figure.axes, strict=True))
    lines = {line.get_label(): line.get_xydata().tolist() for line in panels["quality_ratio"].lines}
    assert lines["small"] == [[49, 1.6], [49, 1.7]]
    assert lines["wide"] == [[256, 1.6], [256, 1.7]]
    entries = [text.get_text() for text in figure.legends[0].texts]
    assert entries == ["small: 49 tokens, 32 codes", "wide: 256 tokens, 1,024 codes", "1 step", "2 steps"]
    assert [text.get_text() for text in panels["latency_speedup"].texts] == ["nothing measured"]
    assert not panels["latency_speedup"].lines


def test_nothing_measured_yet():
    assert all(axis.texts[0].get_text() == "nothing measured" for axis in geometry_figure([]).axes)
