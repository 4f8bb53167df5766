"""--dry-run of the stages: what, from what, how long; nothing is written; exit status 1 where something is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dd.errors import DDError
from dd.presets.dry_run import dry_run
from dd.trajectories.stage import Engine, main
from tests.helpers.paths import ROOT
from tests.helpers.tiny import write_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A teacher and its pairs, no student."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setattr("dd.presets.dry_run.missing", lambda *_: [])
    write_project(tmp_path, steps=6)
    return tmp_path


def files(root: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in root.rglob("*")}


@pytest.mark.parametrize("stage", ["teacher", "trajectories", "distill", "evaluate"])
def test_nothing_is_written(project: Path, stage: str):
    before = files(project)
    dry_run(stage, "toy")
    assert files(project) == before


def test_a_stage_says_what_it_makes_from_what_and_how_long_it_takes(project: Path):
    found = dry_run("distill", "toy")
    assert found.lacking == []
    assert found.lines[:3] == [
        "distill toy: would write models/toy",
        "makes: a student: 6 steps of 4 pairs",
        "from: data/toy/teacher, data/toy/trajectories",
    ]
    assert "on one NVIDIA H100 SXM by the plan (dd-cli plan toy has its arithmetic)" in found.lines[3]
    assert found.lines[4] == "nothing is missing"


def test_what_a_stage_measured_here_counts_instead_of_the_plan(project: Path):
    folder = project / "work" / "rates" / "toy"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "distill.json").write_text(json.dumps({"rate": 0.001, "device": "CPU", "processes": 1}))
    assert "takes: 1.7 hours by the rate that this stage last had on CPU" in dry_run("distill", "toy").lines


def test_what_an_earlier_stage_owes_is_missing(project: Path):
    found = dry_run("evaluate", "toy")
    assert found.lacking == ["models/toy: run the stage before it"]
    assert "missing: models/toy: run the stage before it" in found.lines


def test_finished_shards_are_counted(project: Path):
    assert "all of which are there" in dry_run("trajectories", "toy").lines[1]
    (project / "data/toy/trajectories").rename(project / "elsewhere")
    assert ", 0 of " in dry_run("trajectories", "toy").lines[1]
    main("toy", Engine(), "cpu", str(project / "other"))


def test_an_unknown_experiment_is_refused(project: Path):
    with pytest.raises(DDError, match=r"no experiment .tyo. in params\.yaml"):
        dry_run("distill", "tyo")


def test_the_command_line(project: Path):
    environment = {**os.environ, "DD_ROOT": str(project), "PYTHONPATH": str(ROOT), "DD_LAUNCH": "2"}
    command = [sys.executable, "-m", "stages.evaluate", "toy", "--dry-run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("evaluate toy: would write results/toy\n")
    assert "missing: models/toy: run the stage before it" in done.stdout
