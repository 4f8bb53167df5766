"""Reading trajectory shards: a verified set as tensors, or as an endless shuffled stream that resumes at any row.

The stream goes through the shards in a random order, a few of them (the buffer) at a time, and through the rows of the
buffer in a random order. That order is a pure function of (seed, epoch), so a position in it is one number, and
several ranks take their parts of each global batch: no row twice, none left out, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import torch
from torch import Tensor

from dd.errors import DDError
from dd.trajectories.noise import noise, uniform
from dd.trajectories.plan import MANIFEST, Manifest, Record, ShardPlan, Split, parse_shard


@dataclass(frozen=True)
class Rows:
    """Pairs as they are stored, without their noise: indices (n,) int64, conditions (n,) int64, tokens (n, L) int64.

    While they wait in a buffer, tokens are 16 bits wide (as int16: torch indexes no uint16).
    """

    indices: Tensor
    conditions: Tensor
    tokens: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, rows: slice | Tensor) -> Rows:
        """Some of them."""
        return Rows(self.indices[rows], self.conditions[rows], self.tokens[rows])

    def wide(self) -> Rows:
        """With int64 tokens, as models take them."""
        return Rows(self.indices, self.conditions, self.tokens.long() & 0xFFFF)

    @staticmethod
    def join(parts: list[Rows]) -> Rows:
        """One after the other."""
        return Rows(*(torch.cat([getattr(p, name) for p in parts]) for name in ("indices", "conditions", "tokens")))


@dataclass(frozen=True)
class Shards:
    """A set whose manifest and files were checked. url: its folder, a path or anything fsspec knows."""

    url: str
    manifest: Manifest

    @property
    def plan(self) -> ShardPlan:
        return self.manifest.plan

    @property
    def seed(self) -> int:
        """Seed of the noise."""
        return self.plan.seed

    def records(self, split: Split) -> tuple[Record, ...]:
        """The shards of a split."""
        return tuple(record for record in self.manifest.records if record.split == split)

    def rows(self, split: Split) -> int:
        """Number of pairs of a split."""
        return sum(record.rows for record in self.records(split))

    def read(self, record: Record) -> Rows:
        """One shard, checked against the manifest before any row is looked at. Raises DDError."""
        source = f"{self.url}/{record.file}"
        return Rows(*parse_shard(_read(source), record, self.plan, source))

    def to_tensors(self, split: Split, limit: int | None = None) -> Rows:
        """The first `limit` rows of a split (default all of them) at once, in the order of their index."""
        parts: list[Rows] = []
        for record in self.records(split):
            if limit is not None and sum(map(len, parts)) >= limit:
                break
            parts.append(self.read(record))
        if not parts:
            raise _empty(self, split)
        return Rows.join(parts).take(slice(limit)).wide()

    def held_out(self) -> Rows:
        """All rows for validation."""
        return self.to_tensors("held_out")

    def noise(self, rows: Rows) -> Tensor:
        """The noise (n, L, C) that the tokens of some rows were made from."""
        return noise(self.seed, rows.indices, self.plan.length, self.plan.width)

    def reader(
        self, batch: int, seed: int = 0, rank: int = 0, world: int = 1, buffer: int = 16384, split: Split = "train"
    ) -> RowReader:
        """Endless shuffled batches for one of `world` ranks, holding at most `buffer` rows (but one shard at least)."""
        return RowReader(self, batch, seed, rank, world, buffer, split)


def _empty(shards: Shards, split: Split) -> DDError:
    setting = {"train": "pairs", "held_out": "held_out"}[split]
    return DDError(f"{shards.url} holds no pairs of the split '{split}': raise trajectories.{setting}")


def open_shards(folder: Path | str, expect_teacher: str | None = None, verify: bool = True) -> Shards:
    """Open a finished set. Raises DDError where it is unfinished, damaged, or made from another teacher.

    folder: a path, or any URL that fsspec knows. expect_teacher: its SHA-256.
    verify: hash every file now, so that damage shows before the first row is used; each is checked again when read.
    """
    url = str(folder).rstrip("/")
    source = f"{url}/{MANIFEST}"
    try:
        manifest = Manifest.from_bytes(_read(source), source)
    except FileNotFoundError:
        raise DDError(f"expected shards in {url}, {MANIFEST} is missing: run the stage 'trajectories'") from None
    found = manifest.plan
    if expect_teacher is not None and expect_teacher != found.teacher_sha256:
        raise DDError(
            f"{url} was made from another teacher: expected {expect_teacher[:12]}..., got "
            f"{found.teacher_sha256[:12]}...: run the stage 'trajectories' again"
        )
    opened = Shards(url, manifest)
    if verify:
        for record in manifest.records:
            opened.read(record)
    return opened


def _read(url: str) -> bytes:
    fs, path = fsspec.core.url_to_fs(url)
    try:
        return fs.cat_file(path)
    except FileNotFoundError:
        if url.endswith(MANIFEST):
            raise
        raise DDError(f"{url} is missing: run the stage 'trajectories' again") from None
    except OSError as error:
        raise DDError(f"cannot read {url}: {error.strerror or error}") from error


class RowReader:
    """An endless iterator of `Rows`, made by `Shards.reader`.

    Its state is the number of rows that all ranks were given: a stream goes on with other batches and other ranks.
    """

    def __init__(
        self,
        shards: Shards,
        batch: int,
        seed: int,
        rank: int,
        world: int,
        buffer: int,
        split: Split,
    ) -> None:
        if batch < 1 or not 0 <= rank < world:
            raise DDError(f"expected batch >= 1 and 0 <= rank < world, got batch {batch}, rank {rank} of {world}")
        self.shards, self.records = shards, shards.records(split)
        self.rows = shards.rows(split)
        if not self.rows:
            raise _empty(shards, split)
        self.batch, self.seed, self.rank, self.world = batch, seed, rank, world
        # Equal shards (all but the last of a split), so many that the buffer is never exceeded.
        self.window = max(1, buffer // max(record.rows for record in self.records))
        self.given = 0

    def __iter__(self) -> Iterator[Rows]:
        size = self.batch * self.world
        source = self._order(*divmod(self.given, self.rows))
        kept = next(source)
        while True:
            parts = []
            wanted = size
            while wanted:
                if not len(kept):
                    kept = next(source)
                parts.append(kept.take(slice(wanted)))
                kept = kept.take(slice(wanted, None))
                wanted -= len(parts[-1])
            self.given += size
            mine = Rows.join(parts).take(slice(self.rank * self.batch, (self.rank + 1) * self.batch))
            yield mine.wide()

    def _order(self, epoch: int, offset: int) -> Iterator[Rows]:
        """Shuffled buffers from a row of an epoch on, without end."""
        while True:
            order = self._shuffle(epoch, 0, len(self.records))
            for start in range(0, len(order), self.window):
                chosen = [self.records[i] for i in order[start : start + self.window].tolist()]
                size = sum(record.rows for record in chosen)
                if offset >= size:
                    offset -= size
                    continue
                rows = Rows.join([self.shards.read(record) for record in chosen])
                yield rows.take(self._shuffle(epoch, 1 + start, size)[offset:])
                offset = 0
            epoch += 1

    def _shuffle(self, epoch: int, part: int, size: int) -> Tensor:
        """A permutation of range(size), the same everywhere."""
        first = (epoch << 48) + (part << 28)
        return uniform(self.seed, first + torch.arange(size), 1)[:, 0].argsort(stable=True)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; `load_state_dict` then continues at the exact row."""
        return {"rows": self.given, "seed": self.seed, "window": self.window}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes effect at the next `iter`. Raises DDError for the state of another stream."""
        expected = {key: value for key, value in self.state_dict().items() if key != "rows"}
        if {key: state.get(key) for key in expected} != expected:
            got = {key: state.get(key) for key in expected}
            raise DDError(f"expected the state of a stream with {expected}, got {got}: start the training anew")
        size = self.batch * self.world
        if state.get("rows", 1) % size:
            raise DDError(
                f"expected the state of a stream after a multiple of {size} rows, got {state.get('rows')}: "
                "choose a batch that divides it"
            )
        self.given = int(state["rows"])
