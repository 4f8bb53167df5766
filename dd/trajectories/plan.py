"""Trajectory shards: what is written, how it is named, and how a finished set is checked.

A *shard* is a Parquet file of consecutive sample indices; a *set* is a folder of shards with `manifest.json`. A row is
a pair without its noise, which follows from (seed, index): index, condition (class, or caption number), seed, tokens.
A shard is the unit of work and its rows are always computed in the same batches, so that whoever computes it writes
the same bytes. The manifest comes last; it holds the plan and the SHA-256 of every shard, and one of itself.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from dd import __version__
from dd.errors import DDError
from dd.flow.grid import Solver
from dd.flow.map import Codes
from dd.models.base import Condition, Filters, Teacher
from dd.system.files import atomic_path, sha256_file
from dd.trajectories.noise import noise
from dd.trajectories.trajectory import Trajectory, trajectory

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class ShardPlan:
    """Everything that decides the bytes of a set; its fingerprint names the work folder.

    pairs, held_out: rows for training, and further ones for validation. shard_size: rows of a shard. batch: rows
    computed at once. conditions: number of classes or captions; sample i has condition i % conditions.
    length, width: L tokens of C numbers of noise. captions_sha256: of the captions table, empty for classes.
    """

    pairs: int
    held_out: int
    shard_size: int
    batch: int
    seed: int
    conditions: int
    length: int
    width: int
    teacher_sha256: str
    codebook_sha256: str
    filters: Filters
    solver: Solver
    captions_sha256: str = ""
    dtype: str = "float32"
    schema_version: int = SCHEMA_VERSION
    library_version: str = __version__

    @property
    def fingerprint(self) -> str:
        """16 hex digits."""
        return hashlib.sha256(_canonical(asdict(self))).hexdigest()[:16]

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, the training rows' first; none holds rows of both splits."""
        ranges = [("train", 0, self.pairs), ("held_out", self.pairs, self.pairs + self.held_out)]
        starts = [
            (split, first, min(first + self.shard_size, end))
            for split, begin, end in ranges
            for first in range(begin, end, self.shard_size)
        ]
        return tuple(Shard(f"{n:05d}.parquet", split, a, b - a) for n, (split, a, b) in enumerate(starts))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ShardPlan:
        """The inverse of `dataclasses.asdict`."""
        nested = {"filters": Filters(**values["filters"]), "solver": Solver(**values["solver"])}
        return cls(**{**values, **nested})


@dataclass(frozen=True)
class Shard:
    """A shard's file name, split, first sample index and number of rows."""

    file: str
    split: str
    first: int
    rows: int


@dataclass(frozen=True)
class Record:
    """A finished shard: its SHA-256, its size, and the mean number of field evaluations of a token."""

    file: str
    split: str
    first: int
    rows: int
    sha256: str
    bytes: int
    evaluations: float


@dataclass(frozen=True)
class Manifest:
    """What a set consists of."""

    plan: ShardPlan
    records: tuple[Record, ...]

    def to_bytes(self) -> bytes:
        """Canonical text: reading accepts no other spelling, so that any changed byte shows."""
        shards = [asdict(record) for record in self.records]
        content = {"fingerprint": self.plan.fingerprint, "plan": asdict(self.plan), "shards": shards}
        return _canonical({**content, "sha256": hashlib.sha256(_canonical(content)).hexdigest()})

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Manifest:
        """Raises DDError for a damaged manifest, or one of another schema version."""
        try:
            content = json.loads(data)
            version = content["plan"]["schema_version"]
            if version == SCHEMA_VERSION:
                plan = ShardPlan.from_dict(content["plan"])
                manifest = cls(plan, tuple(Record(**record) for record in content["shards"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DDError(f"{source} is damaged ({type(error).__name__}): run the stage 'trajectories' again") from None
        if version != SCHEMA_VERSION:
            raise DDError(
                f"{source}: expected schema version {SCHEMA_VERSION}, got {version}: run the stage 'trajectories' again"
            )
        if manifest.to_bytes() != data:
            raise DDError(f"{source} is damaged (its checksum differs): run the stage 'trajectories' again")
        return manifest


def _canonical(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()


# -------------------------------------------------------------------------------------------------------------- writing


def make_rows(
    plan: ShardPlan,
    shard: Shard,
    teacher: Teacher,
    codes: Codes | None = None,
    lookup: Callable[[Tensor], Condition] | None = None,
    loop: Callable[[Condition, Tensor], Trajectory] | None = None,
) -> tuple[pa.Table, float]:
    """Compute a shard: its table and the mean evaluations of a token.

    lookup: from condition numbers (B,) to what the teacher takes (captions); default the numbers themselves. loop: from
    conditions and noise (B, L, C) to a trajectory; default the eager one.
    """
    device = teacher.codebook.device
    if loop is None:
        codes = codes or Codes.prepare(teacher.codebook)
        loop = partial(trajectory, teacher, filters=plan.filters, solver=plan.solver, codes=codes)
    parts, evaluations = [], 0
    for first in range(shard.first, shard.first + shard.rows, plan.batch):
        indices = torch.arange(first, min(first + plan.batch, shard.first + shard.rows))
        numbers = indices % plan.conditions
        condition = lookup(numbers) if lookup else numbers.to(device)
        e = noise(plan.seed, indices, plan.length, plan.width)
        result = loop(condition, e)
        parts.append(result.tokens.cpu())
        evaluations += int(result.evaluations.sum())
    tokens = torch.cat(parts)
    return to_table(plan, shard, tokens), evaluations / tokens.numel()


def to_table(plan: ShardPlan, shard: Shard, tokens: Tensor) -> pa.Table:
    """Rows of a shard from tokens (rows, L) int64."""
    index = np.arange(shard.first, shard.first + shard.rows, dtype=np.int64)
    flat = pa.array(tokens.numpy().astype(np.uint16).ravel())
    offsets = pa.array(np.arange(shard.rows + 1, dtype=np.int32) * plan.length)
    columns = {
        "index": pa.array(index),
        "condition": pa.array((index % plan.conditions).astype(np.int32)),
        "seed": pa.array(np.full(shard.rows, plan.seed, dtype=np.uint64)),
        "tokens": pa.ListArray.from_arrays(offsets, flat),
    }
    return pa.table(columns).replace_schema_metadata({"dd": _canonical({"plan": asdict(plan), **asdict(shard)})})


def write_shard(folder: Path, shard: Shard, table: pa.Table, evaluations: float) -> Record:
    """Write a shard and, after it, its record; each appears under its name only when it is whole and checked."""
    target = folder / shard.file
    with atomic_path(target) as temporary:
        # Parquet has no 16-bit integers: split into bytes, the upper two of each number vanish in compression.
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            compression_level=3,
            use_dictionary=False,
            column_encoding={"tokens.list.element": "BYTE_STREAM_SPLIT"},
            write_statistics=False,
        )
        if not pq.read_table(temporary).equals(table):
            raise DDError(f"{target} does not read back as it was written: check the disk and run the command again")
    record = Record(**asdict(shard), sha256=sha256_file(target), bytes=target.stat().st_size, evaluations=evaluations)
    with atomic_path(record_path(target)) as temporary:
        temporary.write_bytes(_canonical(asdict(record)))
    return record


def record_path(shard_file: Path) -> Path:
    """Where the record of a finished shard lies until the manifest replaces it."""
    return shard_file.with_suffix(".json")


def finished(folder: Path, shard: Shard) -> Record | None:
    """The record of a shard that an earlier run finished, if its bytes are still what they were."""
    target = folder / shard.file
    try:
        record = Record(**json.loads(record_path(target).read_bytes()))
        same = Shard(record.file, record.split, record.first, record.rows) == shard
        return record if same and sha256_file(target) == record.sha256 else None
    except (OSError, ValueError, TypeError):
        return None


def finish(folder: Path, plan: ShardPlan) -> Manifest:
    """Write the manifest of a folder in which every shard is finished, and leave nothing else there."""
    records = []
    for shard in plan.shards:
        record = finished(folder, shard)
        if record is None:
            raise DDError(f"{folder / shard.file} is missing or damaged: run the stage 'trajectories' again")
        records.append(record)
    manifest = Manifest(plan, tuple(records))
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_bytes(manifest.to_bytes())
    keep = {MANIFEST, *(record.file for record in records)}
    for path in folder.iterdir():
        if path.name not in keep:
            path.unlink()
    return manifest


def parse_shard(data: bytes, record: Record, plan: ShardPlan, source: str) -> tuple[Tensor, Tensor, Tensor]:
    """indices (n,) int64, conditions (n,) int64 and tokens (n, L) from a shard's bytes, uint16 as int16.

    Raises DDError before anything is parsed if they are not the bytes that were recorded.
    """
    if len(data) != record.bytes:
        raise DDError(f"{source}: expected {record.bytes} bytes, got {len(data)}: run the stage 'trajectories' again")
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise DDError(f"{source} is damaged (its SHA-256 differs): run the stage 'trajectories' again")
    table = pq.read_table(io.BytesIO(data), use_threads=False)
    index, condition = table["index"].to_numpy(), table["condition"].to_numpy().astype(np.int64)
    tokens = table["tokens"].combine_chunks().values.to_numpy().reshape(len(index), plan.length)
    return torch.from_numpy(index.copy()), torch.from_numpy(condition), torch.from_numpy(tokens.view(np.int16).copy())
