"""What a reader accepts, and in what order it reads."""

import json
from dataclasses import replace

import fsspec
import numpy as np
import pytest
import torch

from dd.errors import DDError
from dd.trajectories.noise import noise
from dd.trajectories.reader import open_shards
from tests.helpers.small.shards import PLAN, hashes, write_set


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
