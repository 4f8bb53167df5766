"""What every program here says and returns when it cannot go on."""

import pytest
import typer

from dd.errors import DDError
from dd.system.command import main

app = typer.Typer(add_completion=False)


@app.command()
def work(how: str) -> None:
    """Ends in some way."""
    if how == "wrong":
        raise DDError("expected this, got that")
    if how == "stopped":
        raise KeyboardInterrupt
    if how == "full":
        raise OSError(28, "No space left on device", "file")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["fine"], 0, ""),
        (["wrong"], 2, "error: expected this, got that\n"),
        (["stopped"], 130, "stopped here\n"),
        (["full"], 2, "error: no space left on the disk (file): free some space and run the command again\n"),
        ([], 2, "error: missing argument 'how'; program -h shows what it takes\n"),
        (["fine", "--fast"], 2, "error: no such option: --fast; program -h shows what it takes\n"),
    ],
)
def test_one_line_and_a_status(monkeypatch, capsys, words, status, said):
    monkeypatch.setattr("sys.argv", ["program", *words])
    with pytest.raises(SystemExit) as end:
        main(app, "program", stopped="stopped here")
    assert end.value.code == status
    assert capsys.readouterr().err.replace("'HOW'", "'how'") == said
