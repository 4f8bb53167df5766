"""dd-cli select: a table, and what it writes."""

from pathlib import Path

from typer.testing import CliRunner

from dd.cli.main import app


def test_the_command_prints_a_table_and_writes_unless_told_not_to(selectable: Path):
    before = (selectable / "params.yaml").read_text()
    dry = CliRunner().invoke(app, ["select", "toy", "--images", "30", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "chosen on fd-toy-validation; params.yaml is as it was (--dry-run)" in dry.output
    assert "dd 0, noise_scale: " in dry.output
    assert (selectable / "params.yaml").read_text() == before
    wet = CliRunner().invoke(app, ["select", "toy", "--images", "30"])
    assert "now run: dvc repro evaluate@toy" in wet.output
    assert "selected_on: fd-toy-validation" in (selectable / "params.yaml").read_text()
