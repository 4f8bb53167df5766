"""A small set of shards with arbitrary tokens."""

import hashlib
from pathlib import Path

import torch

from dd.flow.grid import Solver
from dd.models.base import Filters
from dd.trajectories.plan import ShardPlan, finish, to_table, write_shard

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
