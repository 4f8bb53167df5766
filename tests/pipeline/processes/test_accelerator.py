"""Places on the accelerator."""

import threading
from pathlib import Path

import pytest

from pipeline.processes import accelerator, process


def test_a_place_is_held_until_its_context_ends(tmp_path: Path) -> None:
    said: list[str] = []
    with accelerator.place(tmp_path, 2, "a", said.append), accelerator.place(tmp_path, 2, "b", said.append):
        assert accelerator.holders(tmp_path) == "a, b"
    assert accelerator.holders(tmp_path) == ""
    assert not said


def test_who_waits_says_so_once_and_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(accelerator, "POLL", 0.01)
    monkeypatch.setattr(process, "stopping", threading.Event())

    def note(text: str) -> None:
        said.append(text)
        process.stopping.set()

    with (
        accelerator.place(tmp_path, 1, "a", note),
        pytest.raises(process.StoppedError, match="not started: b waited for the accelerator"),
        accelerator.place(tmp_path, 1, "b", note),
    ):
        pass
    assert said == ["waiting for the accelerator (a has it)"]
