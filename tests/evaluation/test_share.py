"""Several processes share the images of a row."""

import pytest
import torch

from dd.evaluation.share import Share


@pytest.mark.parametrize(("images", "batch", "world"), [(10, 3, 2), (9, 3, 3), (2, 5, 4), (12, 1, 5)])
def test_parts_come_in_the_order_of_the_images(images, batch, world):
    """Round by round, by hand: each process deals out its own batches, the main one takes all."""
    starts = list(range(0, images, batch))
    taken: list[int] = []
    waiting: list[list[int | None]] = []

    def gather(rank):
        def collect(part):
            if rank == 0:
                waiting.append([part])
            else:
                waiting[rounds[rank]].append(part)
                rounds[rank] += 1
            return []

        return collect

    rounds = [0] * world
    for rank in range(world):
        mine = [(torch.tensor([start]), None) for start in starts[rank::world]]
        share = Share(rank, world, batch, gather(rank))
        share.gather_parts(lambda x, classes, first: (int(x), first), mine, images, lambda part: None)
    assert len({len(one) for one in waiting}) == 1, "a process left a round out"
    for parts in waiting:
        taken += [part for part in parts if part is not None]
    assert taken == [(start, start) for start in starts]
