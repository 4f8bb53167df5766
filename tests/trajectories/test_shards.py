"""Shards: their bytes, whoever makes them; what a reader accepts, and in what order it reads."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock

from dd import config
from dd.checkpoints.teachers import load_teacher_dir, read_info
from dd.errors import DDError
from dd.flow.grid import Solver
from dd.models.base import Filters
from dd.trajectories import stage as trajectories
from dd.trajectories.noise import noise
from dd.trajectories.plan import ShardPlan, finish, finished, to_table, write_shard
from dd.trajectories.reader import open_shards
from dd.trajectories.trajectory import trajectory
from tests.helpers.paths import ROOT
from tests.helpers.toy_project import make_project

PLAN = ShardPlan(100, 20, 32, 8, 5, 10, 16, 4, "a" * 64, "b" * 64, Filters(1.5), Solver())


def write_set(folder: Path, plan: ShardPlan = PLAN) -> Path:
    """A set with arbitrary tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for shard in plan.shards:
        tokens = torch.randint(0, 65536, (shard.rows, plan.length), generator=generator)
        write_shard(folder, shard, to_table(plan, shard, tokens), 3.5)
    finish(folder, plan)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


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


# ---------------------------------------------------------------------------------------------------- the format


def test_plan_covers_every_index_once():
    assert [(s.split, s.first, s.rows) for s in PLAN.shards] == [
        ("train", 0, 32),
        ("train", 32, 32),
        ("train", 64, 32),
        ("train", 96, 4),
        ("held_out", 100, 20),
    ]
    assert replace(PLAN, solver=Solver(ratio=1.1)).fingerprint != PLAN.fingerprint
    assert replace(PLAN, filters=Filters(1.6)).fingerprint != PLAN.fingerprint


@pytest.mark.parametrize(("length", "size", "rows"), [(64, 256, 1024), (256, 16384, 64), (680, 4096, 64)])
def test_a_pair_is_small(tmp_path, length, size, rows):
    plan = replace(PLAN, pairs=rows, held_out=0, shard_size=rows, length=length)
    table = to_table(plan, plan.shards[0], torch.randint(0, size, (rows, length)))
    record = write_shard(tmp_path, plan.shards[0], table, 1.0)
    assert record.bytes / rows <= 2.2 * length + 64


def test_a_shard_is_plain_parquet(tmp_path):
    write_set(tmp_path)
    table = pq.read_table(tmp_path / "00001.parquet")
    assert table.column_names == ["index", "condition", "seed", "tokens"]
    assert str(table.schema.field("tokens").type.value_type) == "uint16"
    row = table.slice(1, 1).to_pylist()[0]
    assert (row["index"], row["condition"], row["seed"], len(row["tokens"])) == (33, 3, 5, 16)
    assert json.loads(table.schema.metadata[b"dd"])["plan"]["teacher_sha256"] == "a" * 64


def test_finished_shards_are_known_by_their_bytes(tmp_path):
    shard = PLAN.shards[0]
    assert finished(tmp_path, shard) is None
    record = write_shard(tmp_path, shard, to_table(PLAN, shard, torch.zeros(32, 16, dtype=torch.long)), 1.0)
    assert finished(tmp_path, shard) == record
    assert finished(tmp_path, replace(shard, rows=31)) is None
    data = bytearray((tmp_path / shard.file).read_bytes())
    data[100] ^= 1
    (tmp_path / shard.file).write_bytes(data)
    assert finished(tmp_path, shard) is None
    with pytest.raises(DDError, match=r"00000.parquet is missing or damaged: run the stage 'trajectories' again"):
        finish(tmp_path, PLAN)


# ---------------------------------------------------------------------------------------------------- reading


def test_held_out_and_limits(tmp_path):
    shards = open_shards(write_set(tmp_path), "a" * 64, "b" * 64)
    assert shards.held_out().indices.tolist() == list(range(100, 120))
    some = shards.to_tensors("train", 40)
    assert some.indices.tolist() == list(range(40))
    assert some.conditions.tolist() == [i % 10 for i in range(40)]
    assert some.tokens.dtype == torch.int64
    assert int(some.tokens.max()) > 40000
    assert torch.equal(shards.noise(some)[3], noise(5, [3], 16, 4)[0])


def test_an_epoch_is_every_row_once_in_another_order(tmp_path):
    shards = open_shards(write_set(tmp_path))
    batches = iter(shards.reader(10, seed=1, buffer=64))
    epochs = [torch.cat([next(batches).indices for _ in range(10)]) for _ in range(2)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(100))
    assert epochs[0].tolist() != epochs[1].tolist()
    tokens = shards.to_tensors("train").tokens
    batch = next(batches)
    assert torch.equal(batch.tokens, tokens[batch.indices])
    other = next(iter(shards.reader(10, seed=2, buffer=64)))
    assert other.indices.tolist() != epochs[0][:10].tolist()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_each_global_batch(tmp_path, world):
    shards = open_shards(write_set(tmp_path))
    whole = iter(shards.reader(6 * world, seed=3, buffer=40))
    ranks = [iter(shards.reader(6, seed=3, rank=rank, world=world, buffer=40)) for rank in range(world)]
    for _ in range(40 // world):
        together = torch.cat([next(rank).indices for rank in ranks])
        assert torch.equal(together, next(whole).indices)


@pytest.mark.parametrize("given", [0, 3, 10, 17, 41])
def test_resuming_continues_at_the_exact_row(tmp_path, given):
    shards = open_shards(write_set(tmp_path))
    reader = shards.reader(7, seed=4, buffer=40)
    batches = iter(reader)
    for _ in range(given):
        next(batches)
    state = json.loads(json.dumps(reader.state_dict()))
    expected = [next(batches).indices.tolist() for _ in range(20)]
    resumed = shards.reader(7, seed=4, buffer=40)
    resumed.load_state_dict(state)
    batches = iter(resumed)
    assert [next(batches).indices.tolist() for _ in range(20)] == expected
    with pytest.raises(DDError, match="expected the state of a stream with"):
        shards.reader(7, seed=5, buffer=40).load_state_dict(state)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_stream_goes_on_with_other_batches_and_other_ranks(tmp_path, world):
    shards = open_shards(write_set(tmp_path))
    reader = shards.reader(8, seed=4, buffer=40)
    batches = iter(reader)
    for _ in range(7):
        next(batches)
    state = json.loads(json.dumps(reader.state_dict()))
    ranks = [shards.reader(2, seed=4, rank=rank, world=world, buffer=40) for rank in range(world)]
    for rank in ranks:
        rank.load_state_dict(state)
    streams = [iter(rank) for rank in ranks]
    found = torch.cat([next(rank).indices for _ in range(40 // world) for rank in streams])
    assert found.tolist() == torch.cat([next(batches).indices for _ in range(10)]).tolist()
    with pytest.raises(DDError, match="after a multiple of 9 rows, got 56: choose a batch that divides it"):
        shards.reader(9, seed=4, buffer=40).load_state_dict(state)


def test_the_reader_holds_no_more_than_its_buffer(tmp_path, monkeypatch):
    from dd.trajectories import reader as module

    sizes = []
    join = module.Rows.join
    monkeypatch.setattr(
        module.Rows, "join", staticmethod(lambda parts: sizes.append(sum(map(len, parts))) or join(parts))
    )
    reader = iter(open_shards(write_set(tmp_path)).reader(8, buffer=64))
    for _ in range(60):
        next(reader)
    assert max(sizes) <= 64


def test_other_filesystems(tmp_path):
    write_set(tmp_path)
    memory = fsspec.filesystem("memory")
    for path in tmp_path.iterdir():
        memory.pipe_file(f"/elsewhere/{path.name}", path.read_bytes())
    assert len(open_shards("memory://elsewhere").held_out()) == 20


# ---------------------------------------------------------------------------------------------------- bad input


def test_every_flipped_or_missing_byte_is_noticed(tmp_path):
    folder = write_set(tmp_path / "set")
    before = hashes(folder)
    random = np.random.default_rng(0)
    files = sorted(folder.iterdir())
    for trial in range(60):
        path = files[trial % len(files)]
        data = path.read_bytes()
        at = int(random.integers(len(data)))
        damaged = data[:at] if trial % 5 == 0 else data[:at] + bytes([data[at] ^ (1 << trial % 8)]) + data[at + 1 :]
        path.write_bytes(damaged)
        with pytest.raises(DDError, match=rf"{path.name}.*run the stage 'trajectories' again"):
            open_shards(folder)
        path.write_bytes(data)
    assert hashes(folder) == before
    open_shards(folder)


def test_a_removed_shard(tmp_path):
    write_set(tmp_path)
    (tmp_path / "00002.parquet").unlink()
    with pytest.raises(DDError, match=r"00002.parquet is missing: run the stage 'trajectories' again"):
        open_shards(tmp_path)


def test_a_folder_without_manifest(tmp_path):
    with pytest.raises(DDError, match=r"expected shards in .*, manifest.json is missing: run the stage 'trajectories'"):
        open_shards(tmp_path)


def test_another_teacher(tmp_path):
    write_set(tmp_path)
    with pytest.raises(
        DDError, match=r"made from another teacher: expected cccccccccccc\.\.\., got aaaaaaaaaaaa\.\.\."
    ):
        open_shards(tmp_path, expect_teacher="c" * 64)


def test_an_older_schema(tmp_path):
    write_set(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    content["plan"]["schema_version"] = 0
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DDError, match="expected schema version 2, got 0: run the stage 'trajectories' again"):
        open_shards(tmp_path)


def test_no_held_out_rows(tmp_path):
    write_set(tmp_path, replace(PLAN, held_out=0))
    with pytest.raises(DDError, match=r"holds no pairs of the split 'held_out': raise trajectories.held_out"):
        open_shards(tmp_path).held_out()


# ---------------------------------------------------------------------------------------------------- the stage


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
