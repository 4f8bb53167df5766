"""What the browser is shown of a run: pictures, rows, keys; and that it never holds the run up."""

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pipeline import artifacts
from pipeline.graph import Stage
from tests.helpers.report_rows import imagined_rows

STAGE = Stage("evaluate@toy", outs=("results/toy",))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "toy"
    folder.mkdir(parents=True)
    for name in ("samples.png", "quality.png", "quality.svg", "only.svg", "notes.txt"):
        (folder / name).write_bytes(b"picture")
    rows = [
        {"experiment": "toy", "label": "dd 0", "metric": "FD-toy", "value": 1.23456, "value_error": 0.1, "kid": None}
    ]
    rows += [{"label": "teacher"}, "odd"]
    (folder / "rows.json").write_text(json.dumps({"rows": rows}))
    return tmp_path


def test_one_picture_of_each_name(project: Path) -> None:
    assert [path.name for path in artifacts.pictures(project, STAGE)] == ["only.svg", "quality.png", "samples.png"]


def test_rows_show_what_was_measured(project: Path) -> None:
    assert artifacts.result_rows(project, [STAGE, Stage("report", outs=("results/toy",))]) == [
        {"experiment": "toy", "metric": "FD-toy", "sampler": "dd 0", "distance": "1.23 ±0.1"},
        {"experiment": "", "metric": "", "sampler": "teacher", "distance": ""},
    ]
    (project / "results" / "toy" / "rows.json").write_text("{")
    assert artifacts.result_rows(project, [STAGE]) == []


def test_keys_are_words_and_dashes() -> None:
    assert artifacts.key_of("Sweep", "lr=0.1, steps_2") == "sweep-lr-0-1-steps-2"


def test_a_large_picture_is_named_not_shown(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(artifacts, "_try", lambda make, text, **named: shown.append(text))
    monkeypatch.setattr(artifacts, "IMAGE_LIMIT", 3)
    artifacts.images(project, STAGE)
    assert shown[0] == "`results/toy/only.svg` of evaluate@toy is too large to show"
    monkeypatch.setattr(artifacts, "IMAGE_LIMIT", 100)
    artifacts.images(project, STAGE)
    assert shown[-1].startswith("![toy-samples](data:image/png;base64,")


def test_progress_is_shown_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(artifacts, "_try", lambda make, *values, **named: shown.append(values) or "id")
    progress = artifacts.Progress("distill@toy")
    for step in (0, 1, 2, 100):
        progress({"step": step, "total": 100, "unit": "steps"})
    assert [values[-1] for values in shown] == [0.0, 100.0]


def test_a_server_that_fails_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def fails() -> NoReturn:
        asked.append(1)
        raise RuntimeError("no\nserver")

    monkeypatch.setattr(artifacts, "_quiet_until", [0.0])
    assert artifacts._try(fails) is None
    assert artifacts._try(fails) is None
    assert len(asked) == 1


def test_results_have_labels_titles_and_errors(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps({"rows": imagined_rows()}))
    stage = type("S", (), {"experiment": "llamagen-toy", "outs": ("rows.json",)})()
    table = artifacts.result_rows(tmp_path, [stage])
    assert [row["sampler"] for row in table][2:5] == ["teacher", "dd 0", "dd 0,16"]
    assert {"experiment", "metric", "steps", "distance", "of teacher", "speed-up, batched"} <= set(table[0])
    assert not any("_" in title for title in table[0])
    assert table[3]["distance"] == "5.40 ±0.08"
    assert table[3]["per image"] == "2.70 ms"
    assert table[-1]["KID"] == ""  # not measured
