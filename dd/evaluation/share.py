"""One process's share of an evaluation that several processes do together (`accelerate launch -m stages.evaluate`).

Batches are dealt in turn: process r of W draws batches r, r + W, ... and takes their features. These are gathered round
by round, and the main process sums them in the order of the images, so that the metrics are those of one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dd.evaluation.sums import Part


@dataclass(frozen=True)
class Share:
    """rank of world processes; batch: images of a batch; gather: one object of each process, on all of them."""

    rank: int = 0
    world: int = 1
    batch: int = 1
    gather: Callable[[Any], list[Any]] = lambda one: [one]
    wait: Callable[[], None] = lambda: None

    def gather_parts(
        self,
        work: Callable[[Tensor, Tensor | None, int], Part],
        batches: Iterable[tuple[Tensor, Tensor | None]],
        images: int,
        take: Callable[[Part], None],
    ) -> None:
        """Do this process's batches; give all processes' parts to `take` in the order of the images (main process)."""
        mine = iter(batches)
        for first in range(self.rank * self.batch, images + self.rank * self.batch, self.world * self.batch):
            found = next(mine, None) if first < images else None
            part = None if found is None else work(*found, first)
            for one in self.gather(part):
                if one is not None and self.rank == 0:
                    take(one)


def open_share(batch: int, cpu: bool) -> Share:
    """This process among those that accelerate launched; alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Share(batch=batch)
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState(cpu=cpu)
    return Share(
        state.process_index, state.num_processes, batch, lambda one: gather_object([one]), state.wait_for_everyone
    )
