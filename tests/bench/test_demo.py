"""`dd-cli bench demo`: a probe of this CPU against a whole run that was measured elsewhere."""

import json

import pytest
from typer.testing import CliRunner

from dd.bench import demo
from dd.cli.main import app
from dd.config import load_experiment
from dd.system import machine
from tests.helpers.paths import ROOT

RECORD = demo.Record(seconds=600, probe_seconds=0.1, cpu="Some CPU, AVX2", threads=2)


def test_time_scales_with_the_probe():
    said = "a training step takes 0.20 s, against 0.10 s where all took 10 (Some CPU, AVX2, 2 threads)"
    assert demo.expected("toy", 0.2, RECORD) == f"about 20 minutes: {said}"
    assert demo.expected("toy", 0.001, RECORD).startswith("about 1 minute: ")
    assert demo.expected("toy", 0.2, None) == (
        "a training step takes 0.20 s; no whole run of toy was recorded to compare with"
    )


def test_what_make_demo_prints_first(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "probe_seconds", lambda _: 0.15)
    monkeypatch.setattr(demo, "RECORDS", tmp_path / "demo.json")
    run = CliRunner().invoke(app, ["bench", "demo", "llamagen-fashion", "--record", "600"], catch_exceptions=False)
    lines = run.output.splitlines()
    assert lines[0].startswith(f"this CPU  {machine.describe('cpu')}; ")
    assert lines[1].startswith("time      about 10 minutes: a training step takes 0.15 s, against 0.15 s")
    assert json.loads((tmp_path / "demo.json").read_text())["llamagen-fashion"]["probe_seconds"] == 0.15
    assert "dd-cli bench demo $(FIRST)" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", ["llamagen-fashion", "var-fashion"])
def test_the_probe_is_a_step_of_the_experiments_student(name):
    assert demo.probe_seconds(load_experiment(name), seconds=0) > 0
