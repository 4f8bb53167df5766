"""The noise generator: published test vectors, pinned bits, distribution, independence of how it is asked."""

import hashlib
import time

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import ndtri

from dd.errors import DDError
from dd.trajectories.noise import _normal, noise, philox, uniform


def words(values: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.array([v], dtype=np.uint64) for v in values)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123's known answers for philox4x32-10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert tuple(int(word[0]) for word in philox(words(counter), key)) == expected


def test_first_values_are_pinned() -> None:
    """Shards store no noise: were one of these bits to change, every shard ever written would be wrong."""
    pinned = "1.b0f008p+0 1.599584p-1 -1.34612ep+0 -1.5e347cp+0 -1.e20a2ep-3 1.a65878p-1 -1.e4e7d8p-1 1.b9ef78p+0"
    expected = [float.fromhex(value) for value in pinned.split()]
    assert noise(7, [0], 1, 8)[0, 0].tolist() == expected
    assert hash_of(noise(2**63 + 5, [0, 1, 2**40], 5, 3)) == PINNED_NOISE
    assert hash_of(uniform(7, [0, 5], 7)) == PINNED_UNIFORM


PINNED_NOISE = "8c02fc8b7f39db14"
PINNED_UNIFORM = "a1c25717cdb3298e"


def hash_of(x: torch.Tensor) -> str:
    return hashlib.sha256(x.numpy().astype(x.numpy().dtype.newbyteorder("<")).tobytes()).hexdigest()[:16]


def test_normals_are_rounded_quantiles() -> None:
    edges = np.concatenate([np.arange(2000), 2**32 - 1 - np.arange(2000), 2**31 + np.arange(-500, 500)])
    some = np.concatenate([edges, np.random.default_rng(0).integers(0, 2**32, 200_000)]).astype(np.uint32)
    np.testing.assert_allclose(_normal(some), ndtri((some.astype(float) + 0.5) / 2**32), rtol=6e-8, atol=0)


def test_distribution() -> None:
    x = noise(0, np.arange(2000), 16, 8).numpy()
    assert stats.kstest(x.ravel(), "norm").pvalue > 1e-3
    flat = x.reshape(2000, -1)
    correlation = np.corrcoef(flat.T) - np.eye(flat.shape[1])
    assert np.abs(correlation).max() < 6 / np.sqrt(2000)
    assert stats.kstest(uniform(0, np.arange(2000), 16).numpy().ravel(), "uniform").pvalue > 1e-3


def test_a_row_depends_on_its_index_only() -> None:
    whole = noise(3, np.arange(100), 7, 3)
    assert torch.equal(noise(3, torch.tensor([42, 7]), 7, 3), whole[[42, 7]])
    assert torch.equal(noise(3, [42], 4, 3), whole[42:43, :4])
    assert not torch.equal(noise(4, [42], 7, 3), whole[42:43])
    assert noise(3, np.zeros(0, dtype=np.int64), 7, 3).shape == (0, 7, 3)


def test_speed() -> None:
    start = time.perf_counter()
    noise(0, np.arange(10_000), 64, 8)
    assert time.perf_counter() - start < 3  # 0.15 s on an idle core


@pytest.mark.parametrize(
    ("seed", "indices", "text"),
    [
        (-1, [0], r"seed must be in 0..2\^64-1, got -1"),
        (0, [-3], "sample indices start at 0, got -3"),
        (0, [0.5], r"indices must be one row of integers, got shape \(1,\) of float64"),
        (0, [[1]], r"indices must be one row of integers, got shape \(1, 1\) of int64"),
    ],
)
def test_bad_input(seed: int, indices: list, text: str) -> None:
    with pytest.raises(DDError, match=text):
        noise(seed, indices, 2, 2)
