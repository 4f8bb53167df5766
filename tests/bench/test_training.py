"""Training beside a bare loop."""

import json

import pytest
from typer.testing import CliRunner

from dd.cli.main import app

pytestmark = pytest.mark.usefixtures("tiny_zoo")


def test_training_of_both_families_against_a_bare_loop(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    models = ["--model", "llamagen-tiny", "--model", "var-tiny"]
    command = ["bench", "training", *models, "--batch", "4", "--steps", "3", "--rounds", "1", "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    saved = json.loads((tmp_path / "results" / "bench" / "training.json").read_text())
    assert {"command", "date", "machine"} < saved.keys()
    assert [row["teacher"] for row in saved["rows"]] == ["llamagen-tiny", "var-tiny"]
    for row in saved["rows"]:
        assert (row["batch"], row["steps"], row["rounds"]) == (4, 3, 1)
        assert row["ratio"] == pytest.approx(row["training_seconds"] / row["bare_seconds"])
        assert 0 <= row["waited_seconds"] <= row["training_seconds"]
