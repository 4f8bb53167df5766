"""Reading pairs: a verified set of shards as tensors, or as an endless shuffled stream that resumes at the exact row.

The stream goes through the shards in a random order, a few of them (the buffer) at a time, and through the rows of the
buffer in a random order. That order is a pure function of (seed, epoch), so a position in it is one number, and
several ranks take their parts of each global batch: no row twice, none left out, whatever their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import torch
from torch import Tensor

from dd.errors import DDError
from dd.models.base import Condition
from dd.noise import noise, uniform
from dd.shards import MANIFEST, Manifest, Record, ShardPlan, Split, parse_shard

Lookup = Callable[[Tensor], Condition]


@dataclass(frozen=True)
class Pairs:
    """A batch of trajectories: noise (B, L, C) float32, tokens (B, L) int64, condition of size B, index (B,) int64."""

    noise: Tensor
    tokens: Tensor
    condition: Condition
    index: Tensor


@dataclass(frozen=True)
class _Rows:
    """Rows as they are stored: index (n,), condition (n,), tokens (n, L) uint16."""

    index: np.ndarray
    condition: np.ndarray
    tokens: np.ndarray

    def take(self, rows: slice | np.ndarray) -> _Rows:
        return _Rows(self.index[rows], self.condition[rows], self.tokens[rows])

    @staticmethod
    def join(parts: list[_Rows]) -> _Rows:
        return _Rows(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("index", "condition", "tokens")))


@dataclass(frozen=True)
class ShardSet:
    """A set whose manifest and files were checked. url: its folder, a path or anything fsspec knows."""

    url: str
    manifest: Manifest

    @property
    def plan(self) -> ShardPlan:
        return self.manifest.plan

    def records(self, split: Split) -> tuple[Record, ...]:
        """The shards of a split."""
        return tuple(record for record in self.manifest.records if record.split == split)

    def rows(self, split: Split) -> int:
        """Number of pairs of a split."""
        return sum(record.rows for record in self.records(split))

    def read(self, record: Record) -> _Rows:
        """One shard, checked against the manifest before any row is looked at. Raises DDError."""
        source = f"{self.url}/{record.file}"
        return _Rows(*parse_shard(_read(source), record, self.plan, source))

    def pairs(self, rows: _Rows, lookup: Lookup | None = None) -> Pairs:
        """Stored rows with their noise."""
        plan, numbers = self.plan, torch.from_numpy(np.ascontiguousarray(rows.condition))
        return Pairs(
            noise=noise(plan.seed, rows.index, plan.length, plan.width),
            tokens=torch.from_numpy(rows.tokens.astype(np.int64)),
            condition=lookup(numbers) if lookup else numbers,
            index=torch.from_numpy(np.ascontiguousarray(rows.index)),
        )

    def to_tensors(self, split: Split, limit: int | None = None, lookup: Lookup | None = None) -> Pairs:
        """The first `limit` pairs of a split (default all of them) at once, in the order of their index."""
        parts: list[_Rows] = []
        for record in self.records(split):
            if limit is not None and sum(len(p.index) for p in parts) >= limit:
                break
            parts.append(self.read(record))
        if not parts:
            raise DDError(f"{self.url} holds no pairs of the split '{split}': raise trajectories.{_SETTING[split]}")
        return self.pairs(_Rows.join(parts).take(slice(limit)), lookup)

    def stream(
        self,
        batch: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        buffer: int = 16384,
        split: Split = "train",
        lookup: Lookup | None = None,
    ) -> PairStream:
        """Endless batches of `batch` pairs for one of `world` ranks; at most `buffer` rows (one shard at least) held."""
        return PairStream(self, batch, seed, rank, world, buffer, split, lookup)


_SETTING = {"train": "pairs", "held_out": "held_out"}


def open_shards(
    url: str, teacher_sha256: str | None = None, codebook_sha256: str | None = None, verify: bool = True
) -> ShardSet:
    """Open a finished set. Raises DDError where it is unfinished, damaged, or made from another teacher.

    verify: hash every file now, so that damage shows before the first row is used; each is checked again when read.
    """
    url = str(url).rstrip("/")
    source = f"{url}/{MANIFEST}"
    try:
        manifest = Manifest.from_bytes(_read(source), source)
    except FileNotFoundError:
        raise DDError(f"expected shards in {url}, {MANIFEST} is missing: run the stage 'trajectories'") from None
    found = manifest.plan
    for what, expected, got in (
        ("teacher", teacher_sha256, found.teacher_sha256),
        ("codebook", codebook_sha256, found.codebook_sha256),
    ):
        if expected is not None and expected != got:
            raise DDError(
                f"{url} was made from another {what}: expected {expected[:12]}..., got {got[:12]}...: "
                "run the stage 'trajectories' again"
            )
    opened = ShardSet(url, manifest)
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


class PairStream:
    """An endless iterator of `Pairs`, made by `ShardSet.stream`. Its state is the number of global batches given."""

    def __init__(
        self,
        shards: ShardSet,
        batch: int,
        seed: int,
        rank: int,
        world: int,
        buffer: int,
        split: Split,
        lookup: Lookup | None,
    ) -> None:
        if batch < 1 or not 0 <= rank < world:
            raise DDError(f"expected batch >= 1 and 0 <= rank < world, got batch {batch}, rank {rank} of {world}")
        self.shards, self.lookup, self.records = shards, lookup, shards.records(split)
        self.rows = shards.rows(split)
        if not self.rows:
            raise DDError(f"{shards.url} holds no pairs of the split '{split}': raise trajectories.{_SETTING[split]}")
        self.batch, self.seed, self.rank, self.world = batch, seed, rank, world
        # Equal shards (all but the last of a split), so many that the buffer is never exceeded.
        self.window = max(1, buffer // max(record.rows for record in self.records))
        self.given = 0

    def __iter__(self) -> Iterator[Pairs]:
        size = self.batch * self.world
        source = self._order(*divmod(self.given * size, self.rows))
        kept = next(source)
        while True:
            parts = []
            wanted = size
            while wanted:
                if not len(kept.index):
                    kept = next(source)
                parts.append(kept.take(slice(wanted)))
                kept = kept.take(slice(wanted, None))
                wanted -= len(parts[-1].index)
            self.given += 1
            mine = _Rows.join(parts).take(slice(self.rank * self.batch, (self.rank + 1) * self.batch))
            yield self.shards.pairs(mine, self.lookup)

    def _order(self, epoch: int, offset: int) -> Iterator[_Rows]:
        """Shuffled buffers from a row of an epoch on, without end."""
        while True:
            order = self._shuffle(epoch, 0, len(self.records))
            for start in range(0, len(order), self.window):
                chosen = [self.records[i] for i in order[start : start + self.window]]
                size = sum(record.rows for record in chosen)
                if offset >= size:
                    offset -= size
                    continue
                rows = _Rows.join([self.shards.read(record) for record in chosen])
                yield rows.take(self._shuffle(epoch, 1 + start, size)[offset:])
                offset = 0
            epoch += 1

    def _shuffle(self, epoch: int, part: int, size: int) -> np.ndarray:
        """A permutation of range(size), the same everywhere."""
        first = (epoch << 48) + (part << 28)
        return np.argsort(uniform(self.seed, first + np.arange(size), 1)[:, 0].numpy(), kind="stable")

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; `load_state_dict` then continues at the exact row."""
        return {"given": self.given, "seed": self.seed, "global_batch": self.batch * self.world, "window": self.window}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes effect at the next `iter`. Raises DDError for the state of another stream."""
        expected = {key: value for key, value in self.state_dict().items() if key != "given"}
        if {key: state.get(key) for key in expected} != expected:
            got = {key: state.get(key) for key in expected}
            raise DDError(f"expected the state of a stream with {expected}, got {got}: start the training anew")
        self.given = int(state["given"])
