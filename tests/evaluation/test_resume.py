"""An evaluation that is killed goes on with the next row; several processes give the rows of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dd.evaluation import stage as evaluate
from dd.evaluation.stage import Stage
from tests.helpers.paths import ROOT
from tests.helpers.small.evaluation import write_params

TIMES = ("seconds_per_image", "latency_seconds", "speedup", "latency_speedup")


def rows_of(root: Path) -> list[dict]:
    """The rows without what a clock measured."""
    found = json.loads((root / "results" / "toy" / "rows.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in found]


def test_a_killed_evaluation_goes_on_with_the_next_row(project: Path, monkeypatch: pytest.MonkeyPatch):
    evaluate.main("toy")
    whole = rows_of(project)
    measured: list[str] = []
    measure = Stage._measure

    def stops(self, sampler, partner):
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append(sampler.name)
        return measure(self, sampler, partner)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "_measure", stops)
        with pytest.raises(KeyboardInterrupt):
            evaluate.main("toy")
    assert measured == ["teacher", "real", "reconstruction", "dd"]
    files = sorted((project / "work").glob("*/row-*.safetensors"))
    assert [file.name[4:6] for file in files] == ["00", "01", "02", "04"]
    files[1].write_bytes(b"half a file")  # what a full disk leaves is measured again

    def counts(self, sampler, partner):
        measured.append(sampler.name)
        assert partner is not None or sampler.name == "teacher"
        return measure(self, sampler, partner)

    monkeypatch.setattr(Stage, "_measure", counts)
    evaluate.main("toy")
    assert measured[4:] == ["reconstruction", "dd", "dd+teacher", "skip", "onestep*"]
    assert rows_of(project) == whole
    assert not list((project / "work").glob("*/row-*"))
    assert (project / "results" / "toy" / "samples.png").is_file()


def test_finished_rows_of_other_settings_are_not_taken(project: Path, monkeypatch: pytest.MonkeyPatch):
    write_params(project, seed=3)
    first = Stage("toy", project).folder
    write_params(project, seed=4)
    assert Stage("toy", project).folder != first
    write_params(project, seed=3)
    assert Stage("toy", project).folder == first


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(project: Path):
    evaluate.main("toy")
    alone = rows_of(project)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command = [*launcher, "--main_process_port", "0", "-m", "stages.evaluate", "toy", "--images", str(project / "png")]
    environment = os.environ | {"DD_ROOT": str(project), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=project, check=False)
    assert done.returncode == 0, done.stderr
    together = rows_of(project)
    assert [row["label"] for row in together] == [row["label"] for row in alone]
    for one, other in zip(together, alone, strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-4), one["label"]
        assert one["recall"] == other["recall"]
    kept = sorted(file.name for file in (project / "png" / "teacher").glob("*.png"))
    assert kept == [f"{number:06d}.png" for number in range(90)]
