"""Training batches from trajectory shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dd.distillation.task import Pairs
from dd.errors import DDError
from dd.models.base import Condition
from dd.system.machine import one_thread
from dd.trajectories.reader import Rows, Shards

# Batches that are ready before they are asked for.
AHEAD = 4


@dataclass(frozen=True)
class Division:
    """How the pairs of an update are divided: `parts` one after the other, of `rows` in each of `world` processes."""

    rows: int
    parts: int
    world: int = 1

    def first(self, step: int, part: int, rank: int) -> int:
        """Number, in the run's stream, of the first pair that a process takes in a part of a step."""
        return ((step * self.parts + part) * self.world + rank) * self.rows


def divide(total: int, most: int, world: int, points: int) -> Division:
    """The pairs of an update over `world` processes in equal parts of at most `most` rows, as few as there can be.

    Parts in which every one of the `points` trajectory points has the same share are preferred. Raises DDError where
    the pairs do not divide.
    """
    if total % world:
        near = ", ".join(str(n) for n in range(1, 2 * world) if not total % n)
        raise DDError(
            f"global_batch: expected a multiple of the {world} processes, got {total}; start {near}, or change it"
        )
    share = total // world
    fitting = [rows for rows in range(1, min(most, share) + 1) if not share % rows]
    rows = max([rows for rows in fitting if not rows % points] or fitting)
    if 4 * rows < min(most, share):
        raise DDError(
            f"global_batch: its {share} pairs in each process divide into parts of {rows} only, where a process takes "
            f"{most} at once; choose a multiple of {most}"
        )
    return Division(rows, share // rows, world)


class ShardPairs:
    """Endless batches from the shards, made by a thread while the batch before is trained on.

    Noise is recomputed from (seed, sample index), never stored. lookup: from condition numbers (B,) to what the student
    takes (captions); default the numbers themselves, which are classes.
    """

    def __init__(
        self,
        shards: Shards,
        batch: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        lookup: Callable[[Tensor], Condition] | None = None,
    ) -> None:
        self.shards, self.device, self.lookup = shards, device, lookup
        self.order = (seed, device, rank, world, lookup)
        self.reader = shards.reader(batch, seed, rank, world)
        self.state = self.reader.state_dict()

    def __iter__(self) -> Iterator[Pairs]:
        rows = iter(self.reader)

        def make() -> tuple[Pairs, dict[str, Any]]:
            return self.pairs(next(rows)), self.reader.state_dict()

        pool = ThreadPoolExecutor(1, initializer=one_thread)
        try:
            ready = deque(pool.submit(make) for _ in range(AHEAD))
            while True:
                pairs, self.state = ready.popleft().result()
                ready.append(pool.submit(make))
                yield pairs
        finally:
            pool.shutdown(cancel_futures=True)

    def rebatched(self, batch: int) -> ShardPairs:
        """The same stream from its present place on, in other batches."""
        other = ShardPairs(self.shards, batch, *self.order)
        other.load_state_dict(self.state)
        return other

    def pairs(self, rows: Rows) -> Pairs:
        """Rows of the shards with their noise, on the device."""
        e = self.shards.noise(rows)
        return Pairs(e.to(self.device), rows.tokens.to(self.device), self.conditions(rows), rows.indices)

    def conditions(self, rows: Rows) -> Condition:
        """What the rows were drawn for, on the device: classes, or encoded captions."""
        condition = self.lookup(rows.conditions) if self.lookup else rows.conditions
        return condition.to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Place in the shuffled order, behind the last batch that was given out."""
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.reader.load_state_dict(state)
        self.state = self.reader.state_dict()
