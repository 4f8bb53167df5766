"""The shards of a plan: which indices they hold, and their bytes."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch

from dd.errors import DDError
from dd.flow.grid import Solver
from dd.models.base import Filters
from dd.trajectories.plan import finish, finished, to_table, write_shard
from tests.helpers.small.shards import PLAN, write_set


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
    for change in ({"captions_sha256": "another file"}, {"dtype": "tf32"}):  # nothing of an earlier run is taken over
        assert replace(PLAN, **change).fingerprint != PLAN.fingerprint


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
