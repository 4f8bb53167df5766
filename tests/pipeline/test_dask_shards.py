"""The shards of the real stage, with a tiny teacher, as Prefect tasks on two Dask workers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import dask_shards
from tests.helpers.toy_project import make_project
from tests.pipeline.conftest import post, until

pytest.importorskip("prefect_dask")
STAGE = [sys.executable, "-m", "stages.trajectories", "toy"]


def test_a_killed_worker_changes_nothing(
    tmp_path: Path, api: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    make_project(tmp_path, pairs=480, held_out=0)
    env = {**environment, "DD_ROOT": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run([*STAGE, "--out", str(tmp_path / "alone")], env=env, check=True, capture_output=True)
    env |= {"DD_SHARD_ENGINE": dask_shards.ENGINE, "DD_DASK_WORKERS": "2", "PREFECT_API_URL": api}
    child = subprocess.Popen(STAGE, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    work = tmp_path / "work"
    until(lambda: list(work.glob("*/shards/0*.parquet")) or child.poll() is not None, 300, "a shard")
    assert child.poll() is None, child.communicate()[0]
    os.kill(_workers(child.pid)[0], signal.SIGKILL)
    output = child.communicate(timeout=300)[0]
    assert child.returncode == 0, output
    made, alone = (
        {p.name: p.read_bytes() for p in d.iterdir()} for d in (tmp_path / "data/toy/trajectories", tmp_path / "alone")
    )
    assert made == alone
    run = post(api, "flow_runs/filter", {"flow_runs": {"name": {"any_": ["shards of toy"]}}})[0]
    found = post(api, "task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert {"shard 0", "shard 29"} <= {task["name"] for task in found}


def _workers(stage: int) -> list[int]:
    """The processes of the Dask workers of a stage: they work below it, spawned by multiprocessing."""
    from pipeline.processes.supervisor import descendants

    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(stage)}
    return [pid for pid, name in names.items() if b"spawn_main" in name]
