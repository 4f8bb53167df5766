"""Batches from shards: their division over processes, and resuming within the stream."""

import pytest
import torch

from dd.distillation.batches import ShardPairs, divide
from dd.trajectories.reader import open_shards
from tests.helpers.small.shards import write_set


@pytest.mark.parametrize(
    ("total", "most", "world", "points", "rows", "parts"),
    [
        (32, 32, 1, 2, 32, 1),
        (512, 64, 8, 2, 64, 1),
        (512, 60, 4, 2, 32, 4),
        (512, 64, 1, 3, 64, 8),
        (12, 4, 1, 3, 3, 4),
    ],
)
def test_how_an_update_is_divided(total, most, world, points, rows, parts):
    found = divide(total, most, world, points)
    assert (found.rows, found.parts) == (rows, parts)
    firsts = [found.first(step, part, rank) for step in (0, 1) for part in range(parts) for rank in range(world)]
    assert firsts == list(range(0, 2 * total, rows))


@pytest.fixture
def shards(tmp_path):
    return open_shards(write_set(tmp_path))


def test_ranks_get_different_rows_of_one_stream(shards):
    whole = iter(ShardPairs(shards, 8, 0, torch.device("cpu")))
    ranks = [iter(ShardPairs(shards, 4, 0, torch.device("cpu"), rank, 2)) for rank in (0, 1)]
    for _ in range(15):  # more than an epoch
        parts = [next(rank) for rank in ranks]
        expected = next(whole)
        assert torch.equal(torch.cat([part.noise for part in parts]), expected.noise)
        assert torch.equal(torch.cat([part.tokens for part in parts]), expected.tokens)


def test_batches_made_ahead_do_not_count(shards):
    def source() -> ShardPairs:
        return ShardPairs(shards, 5, 0, torch.device("cpu"))

    first = source()
    assert first.state_dict()["rows"] == 0
    stream = iter(first)
    batches = [next(stream) for _ in range(12)]
    assert first.state_dict()["rows"] == 60
    second = source()
    for state in (3, 11):
        second.load_state_dict({**first.state_dict(), "rows": 5 * state})
        assert second.state_dict()["rows"] == 5 * state
        assert torch.equal(next(iter(second)).noise, batches[state].noise)
