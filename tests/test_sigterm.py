"""SIGTERM in every stage: nothing half-written is published, and the same command then gives the same outputs."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dd.distillation import stage as distill
from tests.helpers.paths import ROOT
from tests.helpers.tiny import write_project

# A stage that gets the signal when it gives a file or a folder its final name for the nth time.
RUN = """
import os, runpy, signal, sys
real, left = os.replace, [int(sys.argv.pop(1))]
def replace(source, target):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGTERM)
    real(source, target)
os.replace = replace
module = sys.argv.pop(1)
sys.argv.insert(0, module)
sys.argv.pop(1)
runpy.run_module(module, run_name="__main__")
"""
OUTPUTS = {
    "teacher": "data/toy/teacher",
    "trajectories": "data/toy/trajectories",
    "distill": "models/toy",
    "evaluate": "results/toy",
}
EVALUATE = {"protocol": "fd-toy", "images": 6, "allow_missing": ["classifier", "reference"]}


@pytest.fixture
def project(tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_STAGE", "any")
    write_project(tmp_path, steps=6)
    path = tmp_path / "params.yaml"
    data = yaml.safe_load(path.read_text())
    data["experiments"]["toy"]["evaluate"] |= EVALUATE
    path.write_text(yaml.safe_dump(data))
    return tmp_path


def run(root: Path, stage: str, at: int) -> subprocess.CompletedProcess[str]:
    """at: which of its renames is met by the signal; 0: none."""
    environment = {**os.environ, "DD_ROOT": str(root), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RUN, str(at), f"stages.{stage}", "toy"]
    return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)


def contents(folder: Path) -> dict[str, str]:
    """Hashes of what is the same in every run (rows hold times)."""
    files = [
        path for path in folder.rglob("*") if path.is_file() and path.suffix in (".safetensors", ".parquet", ".png")
    ]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


@pytest.mark.parametrize(("stage", "at"), [("teacher", 1), ("trajectories", 2), ("distill", 1), ("evaluate", 1)])
def test_sigterm(project, stage, at):
    folder = project / OUTPUTS[stage]
    if stage == "evaluate":
        distill.main("toy")
    if folder.exists():
        folder.rename(folder.with_name("before"))
    ended = run(project, stage, at)
    assert ended.returncode == (143 if stage == "distill" else -signal.SIGTERM), ended.stderr
    assert not folder.exists()
    if stage == "distill":
        assert "distill: stopped by SIGTERM after step 4, which is saved: run the same command to go on" in ended.stderr
    again = run(project, stage, 0)
    assert again.returncode == 0, again.stderr
    first = contents(folder)
    assert first
    folder.rename(folder.with_name("first"))
    undisturbed = run(project, stage, 0)
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert contents(folder) == first
    assert not [path for path in (project / "work").iterdir() if path.name not in ("captions", "rates", "trackers")]
