"""dd-cli report: formats and where they go."""

import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from dd.cli.report import report
from dd.report.table import render
from tests.helpers.report_rows import imagined_rows

APP = Typer()
APP.command()(report)


def test_command(imagined_results: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DD_ROOT", str(imagined_results))
    run = CliRunner().invoke
    assert json.loads(run(APP, ["--format", "json"]).stdout)["rows"][2]["sampler"] == "teacher"
    assert len(json.loads(run(APP, ["--format", "json", "--paper"]).stdout)["rows"]) > len(imagined_rows())
    out = tmp_path / "t.md"
    assert run(APP, ["llamagen-toy", "-f", "markdown", "-o", str(out)]).exit_code == 0
    assert out.read_text() == render(imagined_rows(), "markdown")
    assert run(APP, ["--format", "html"]).stdout.startswith("<!doctype html>")
