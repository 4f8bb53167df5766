"""The progress file is whole, honest about resumed work, and never stops the work."""

import json
import logging
from pathlib import Path

import pytest

import dd.system.progress
from dd.system import progress as module
from dd.system.progress import _time, keep_rates, progress


def test_iterating_writes_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "progress.json"
    monkeypatch.setenv("DD_PROGRESS_FILE", str(file))
    assert list(progress(["a", "b", "c"], unit="shards", label="x", done=2)) == ["a", "b", "c"]
    state = json.loads(file.read_text())
    assert (state["step"], state["total"], state["unit"], state["label"]) == (5, 5, "shards", "x")
    assert state["rate"] > 0
    assert [p.name for p in tmp_path.iterdir()] == ["progress.json"]


def test_counting_a_total_and_first_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "progress.json"
    monkeypatch.setenv("DD_PROGRESS_FILE", str(file))
    with progress(40, unit="steps", done=10) as bar:
        assert json.loads(file.read_text()) == {"step": 10, "total": 40, "unit": "steps", "rate": None, "label": ""}
        bar.update(5, loss=0.5)
    assert json.loads(file.read_text())["step"] == 15


def test_log_line_without_a_terminal(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("DD_PROGRESS_FILE", raising=False)
    monkeypatch.setenv("CI", "1")
    monkeypatch.setattr(dd.system.progress, "LOG_EVERY", 0.0)
    with caplog.at_level(logging.INFO, logger="dd.system.progress"), progress(4, unit="steps", label="distill") as bar:
        bar.update(1, loss=2.0)
    assert caplog.messages[0].startswith("distill: 1/4 steps, ")
    assert caplog.messages[0].endswith(" left, loss 2")


def test_an_unwritable_file_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DD_PROGRESS_FILE", str(tmp_path / "missing" / "p.json"))
    assert list(progress(range(3), unit="images")) == [0, 1, 2]
    assert sum("cannot write progress" in message for message in caplog.messages) == 1


def test_iterating_over_a_total_is_refused() -> None:
    with pytest.raises(TypeError, match="given a total, not an iterable"):
        iter(progress(3, unit="steps")).__next__()


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


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.4, "3 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_time_left(seconds: float, said: str) -> None:
    assert _time(seconds) == said
