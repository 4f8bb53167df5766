"""Shards made by the stage: the same bytes, whoever makes them and however often it is stopped."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock

from dd import config
from dd.checkpoints.teachers import load_teacher_dir, read_info
from dd.errors import DDError
from dd.trajectories import stage as trajectories
from dd.trajectories.reader import open_shards
from dd.trajectories.trajectory import trajectory
from tests.helpers.paths import ROOT
from tests.helpers.small.shards import hashes
from tests.helpers.toy_project import make_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_STAGE", "trajectories@toy")
    return make_project(tmp_path)


def run_stage(*arguments: str) -> str:
    """The stage in this process."""
    engine = trajectories.Engine(threads=1)
    return trajectories.main("toy", engine, "cpu", *arguments)


def stage_process(root: Path, *arguments: str, launcher: tuple[str, ...] = ("-m",), **more) -> subprocess.Popen:
    command = [sys.executable, *launcher, "stages.trajectories", "toy", *arguments]
    environment = os.environ | {"DD_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    here = ROOT
    return subprocess.Popen(command, cwd=here, env=environment, stderr=subprocess.PIPE, text=True, **more)


def test_stage_makes_the_pairs_of_its_teacher(project):
    said = run_stage()
    assert said.startswith("toy: 52 pairs, 4 of 4 shards new")
    info = read_info(project / "data" / "toy" / "teacher")
    shards = open_shards(project / "data" / "toy" / "trajectories", info.sha256, info.codebook_sha256)
    rows = shards.to_tensors("train")
    teacher = load_teacher_dir(project / "data" / "toy" / "teacher")
    plan = shards.plan
    batch = rows.take(slice(16, 24))  # the first batch of the second shard
    expected = trajectory(teacher, batch.conditions, shards.noise(batch), plan.filters, plan.solver)
    assert torch.equal(batch.tokens, expected.tokens)
    assert not (project / "work" / plan.fingerprint).exists()
    assert run_stage() == "toy: 4 shards were there already"


def test_pairs_made_by_hand_are_taken_over_by_dvc(project, monkeypatch):
    """DVC removes outputs that it did not make before it runs the stage."""
    monkeypatch.delenv("DVC_STAGE", raising=False)
    run_stage()
    folder = project / "data" / "toy" / "trajectories"
    expected = hashes(folder)
    shutil.rmtree(folder)
    monkeypatch.setenv("DVC_STAGE", "trajectories@toy")
    assert run_stage().startswith("toy: 52 pairs, 0 of 4 shards new")
    assert hashes(folder) == expected
    assert not [path for path in (project / "work").iterdir() if path.name != "rates"]


def test_threads_and_resumed_runs_write_the_same_bytes(project, tmp_path):
    run_stage()
    folder = project / "data" / "toy" / "trajectories"
    expected = hashes(folder)
    plan = open_shards(folder).plan
    # A killed run: one finished shard, one without its record, one half-written.
    work = project / "work" / plan.fingerprint / "shards"
    work.mkdir(parents=True)
    trajectories.make_shard(trajectories.Job(plan, work, project / "data" / "toy" / "teacher"), 1)
    (work / "00002.parquet").write_bytes((folder / "00002.parquet").read_bytes()[:-1])
    (work / ".00003.parquet.77.part").write_bytes(b"half")
    for path in folder.iterdir():
        path.unlink()
    said = trajectories.main("toy", trajectories.Engine(threads=2), "cpu")
    assert said.startswith("toy: 52 pairs, 3 of 4 shards new")
    assert hashes(folder) == expected


def test_two_accelerate_processes_write_the_same_bytes(project):
    run_stage(str(project / "alone"))
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--main_process_port", "0", "-m")
    process = stage_process(project, launcher=launcher)
    assert process.wait() == 0, process.stderr.read()
    assert hashes(project / "data" / "toy" / "trajectories") == hashes(project / "alone")


def test_dask_survives_a_killed_worker(project):
    pytest.importorskip("dask.distributed")
    from dask.distributed import Client, LocalCluster

    run_stage(str(project / "alone"))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        pids = list(client.run(os.getpid).values())
        process = stage_process(project, "--dask", cluster.scheduler_address)
        work = project / "work"
        while process.poll() is None and not list(work.glob("*/shards/*.parquet")):
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGKILL)
        assert process.wait() == 0, process.stderr.read()
    assert hashes(project / "data" / "toy" / "trajectories") == hashes(project / "alone")


def test_published_elsewhere(project):
    run_stage("memory://bucket/set")
    run_stage(str(project / "alone"))
    assert open_shards("memory://bucket/set").manifest == open_shards(project / "alone").manifest


def test_two_generators_on_one_folder(project):
    settings = config.load_experiment("toy")
    plan = trajectories.make_plan(settings, read_info(project / "data" / "toy" / "teacher"))
    folder = project / "work" / plan.fingerprint
    folder.mkdir(parents=True)
    with FileLock(folder / "lock"), pytest.raises(DDError, match=r"another process makes these trajectories .*: wait"):
        run_stage()


def test_full_disk_in_mid_shard_keeps_the_finished_ones(project, monkeypatch):
    write = pq.write_table
    calls = []

    def full(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments, **options)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(DDError, match=r"no space left on the disk while writing .*00002.parquet: free some space"):
        run_stage()
    assert not (project / "data" / "toy" / "trajectories").exists()
    monkeypatch.undo()
    monkeypatch.setenv("DD_ROOT", str(project))
    assert run_stage().startswith("toy: 52 pairs, 2 of 4 shards new")


def test_read_only_folder(project, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(pq, "write_table", refused)
    with pytest.raises(DDError, match=r"no permission to write .*00000.parquet: make .* writable"):
        run_stage()


def test_a_killed_stage_resumes_to_the_same_bytes(project):
    run_stage(str(project / "alone"))
    process = stage_process(project, "--threads", "1")
    while process.poll() is None and not list((project / "work").glob("*/shards/*.parquet")):
        time.sleep(0.002)
    process.kill()
    process.wait()
    run_stage()
    assert hashes(project / "data" / "toy" / "trajectories") == hashes(project / "alone")
