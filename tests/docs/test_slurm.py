"""The Slurm scripts of the documentation, with stand-ins for srun, scontrol, accelerate and dvc."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dd.errors import DDError
from dd.trajectories import stage as trajectories
from tests.helpers.paths import ROOT
from tests.helpers.toy_project import make_project

DOCS = ROOT / "docs"


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A project with a tiny teacher, and an environment in which Slurm's commands are stand-ins."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    make_project(tmp_path)
    commands = tmp_path / "bin"
    script(commands, "srun", 'exec "$@"')
    script(commands, "scontrol", f'echo "scontrol $*" >> {tmp_path}/said')
    script(commands, "dvc", f'echo "dvc $*" >> {tmp_path}/said')
    script(commands, "python", f'exec {sys.executable} "$@"')  # no launcher for pairs: one job, one card
    return os.environ | {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_an_array_of_jobs_makes_the_shards_of_one_process(cluster: dict[str, str], tmp_path: Path):
    trajectories.main("toy", trajectories.Engine(), "cpu", str(tmp_path / "alone"))
    for task in ("0", "1"):
        slurm = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2"}
        command = ["bash", str(DOCS / "slurm" / "pairs.sbatch"), "toy"]
        done = subprocess.run(command, env=cluster | slurm, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"part {task}/2: 2 of 2 shards new" in done.stderr
    assert not (tmp_path / "data" / "toy" / "trajectories").exists()
    assert "0 of 4 shards new" in trajectories.main("toy", trajectories.Engine(), "cpu")
    for file in (tmp_path / "alone").iterdir():
        assert (tmp_path / "data" / "toy" / "trajectories" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("part", ["2/2", "x/2", "1", "-1/2"])
def test_parts_that_are_none(cluster: dict[str, str], part: str):
    with pytest.raises(DDError, match=r"^--part: expected K/N with 0 <= K < N, such as 3/16, got "):
        trajectories.make_part("toy", part)


def test_usr1_lets_the_training_save_and_queues_the_job_again(cluster: dict[str, str], tmp_path: Path):
    saves = (
        f"trap 'echo saved >> {tmp_path}/said; exit 143' TERM; echo $DD_LAUNCH $* >> {tmp_path}/said; sleep 60 & wait"
    )
    script(tmp_path / "bin", "python", saves)
    command = ["bash", str(DOCS / "slurm" / "run.sbatch"), "toy"]
    job = subprocess.Popen(command, env=cluster | {"SLURM_JOB_ID": "7"}, cwd=ROOT)
    said = tmp_path / "said"
    for _ in range(600):
        if said.is_file() and "stages.distill" in said.read_text():
            break
        time.sleep(0.1)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=180) == 0
    assert said.read_text().splitlines() == [
        "dvc repro trajectories@toy",
        "--config_file docs/accelerate/gpus-8.yaml -m stages.distill toy",
        "saved",
        "scontrol requeue 7",
    ]


def test_an_undisturbed_job_trains_and_leaves_the_rest_to_dvc(cluster: dict[str, str], tmp_path: Path):
    script(tmp_path / "bin", "python", f"echo $* >> {tmp_path}/said")
    command = ["bash", str(DOCS / "slurm" / "run.sbatch"), "toy"]
    assert subprocess.run(command, env=cluster | {"SLURM_JOB_ID": "7"}, cwd=ROOT, check=False).returncode == 0
    said = ["dvc repro trajectories@toy", "-m stages.distill toy", "dvc repro evaluate@toy"]
    assert (tmp_path / "said").read_text().splitlines() == said


@pytest.mark.parametrize("file", sorted((DOCS / "accelerate").glob("*.yaml")), ids=lambda file: file.name)
def test_accelerate_reads_the_configurations(file: Path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(file))
    values = yaml.safe_load(file.read_text())
    assert config.num_processes == values["num_processes"]
    assert config.mixed_precision == "no"
