"""Exit statuses and last lines of the terminal's commands."""

import os
from typing import NoReturn

import pytest
import typer
from rich.console import Console

from dd.errors import DDError
from pipeline.terminal import command


def stopped(_: Console) -> NoReturn:
    raise KeyboardInterrupt


def wrong(_: Console) -> NoReturn:
    raise DDError("expected this, found that: do so")


@pytest.mark.parametrize(
    ("work", "status", "out", "err"),
    [
        (lambda _: (True, "all done"), 0, "all done", ""),
        (lambda _: (False, "1 failed"), 1, "1 failed", ""),
        (wrong, 2, "", "error: expected this, found that: do so"),
        (stopped, 130, "stopped; finished shards and checkpoints are kept", ""),
    ],
)
def test_how_it_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], work, status, out, err):
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    with pytest.raises(typer.Exit) as end:
        command.end(work)
    assert end.value.exit_code == status
    said = capsys.readouterr()
    assert said.out.startswith(out)
    assert said.err.strip() == err


def test_quiet_is_handed_on_to_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DD_QUIET", raising=False)
    assert not command.quiet(False)
    assert command.quiet(True)
    assert os.environ.pop("DD_QUIET") == "1"


def test_without_a_deployment_a_run_is_made_by_prefect_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.mark_crashed, "post", lambda *_: [])
    assert command._flow_run("http://127.0.0.1:9/api", "experiments", {}) is None
