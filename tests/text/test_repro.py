"""`dvc repro` in a project of its own, from the whole checkpoint of a transformers model to results."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.helpers.paths import ROOT
from tests.helpers.tiny_janus import write_janus_project

pytest.importorskip("transformers", reason='the extra "text" is not installed')
pytest.importorskip("dvc", reason='the extra "pipeline" is not installed')
DEPENDENCIES = ("dd/checkpoints/hub_index.yaml", "zoo/fashion/extractor.json", "zoo/scenes/extractor.json")
DEPENDENCIES += ("zoo/scenes-reader/extractor.json",)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    write_janus_project(tmp_path)
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    toy = params["experiments"]["toy"]
    toy["student"], toy["distill"]["baseline"] = None, {"steps": 2, "timesteps": [0, 3]}  # dvc.yaml reads both
    toy["evaluate"]["samplers"] += [{"name": "skip", "n": 1}, {"name": "onestep*"}]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name in DEPENDENCIES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    run(tmp_path, "git", "init", "-q")
    run(tmp_path, sys.executable, "-m", "dvc", "init", "-q")
    run(tmp_path, "git", "add", "params.yaml", "dvc.yaml", ".dvc")
    run(tmp_path, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "A project")
    return tmp_path


def run(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_a_checkpoint_to_results_and_nothing_twice(project):
    first = run(project, sys.executable, "-m", "dvc", "repro", "evaluate@toy")
    for stage in ("teacher", "trajectories", "distill", "evaluate"):
        assert f"Running stage '{stage}@toy'" in first
    rows = json.loads((project / "results" / "toy" / "rows.json").read_text())["rows"]
    assert [row["label"] for row in rows] == ["teacher", "dd 0,2", "skip-1", "onestep*"]
    assert all(row["family"] == "janus" and row["value"] > 0 for row in rows)
    again = run(project, sys.executable, "-m", "dvc", "repro", "evaluate@toy")
    assert again.count("Running stage") == 1  # the digests of the code, as always
    assert "Running stage 'code@toy'" in again
