"""What the DVC remote lacks is known before a run computes it."""

import json
from pathlib import Path

import pytest

from dd.errors import DDError
from pipeline import remote
from pipeline.graph import Stage

PLAN = {name: Stage(name, outs=(f"out/{name}",)) for name in ("a", "b", "c")}


def answer(monkeypatch: pytest.MonkeyPatch, text: str, status: int = 0) -> None:
    def run(words: list[str], cwd: Path, line) -> int:
        line("some words of DVC")
        line(text)
        return status

    monkeypatch.setattr(remote.process, "run", run)


def test_lost_outputs_and_unrecorded_stages_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.lock").write_text("stages: {a: {}, b: {}}\n")
    answer(monkeypatch, json.dumps({"not_in_remote": ["out/b/", "out/a"], "not_in_cache": ["out/b/"]}))
    assert remote.missing(tmp_path, PLAN) == ["b", "c"]  # a is in the cache; c was never run
    assert remote.announcement(tmp_path, PLAN) == "the remote lacks b, c: computed here"


@pytest.mark.parametrize(("text", "status"), [("no JSON", 0), ("{", 0), ("{}", 1)])
def test_an_answer_that_cannot_be_read_says_nothing(tmp_path, monkeypatch, text: str, status: int) -> None:
    answer(monkeypatch, text, status)
    assert remote.announcement(tmp_path, PLAN) is None


def test_no_remote_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("")
    with pytest.raises(DDError, match=r"^expected a DVC remote to pull from, found none; .* or leave --pull out$"):
        remote.check_remote(tmp_path)
    (tmp_path / ".dvc" / "config").write_text("[core]\n    remote = team\n['remote \"team\"']\n    url = /somewhere\n")
    remote.check_remote(tmp_path)
