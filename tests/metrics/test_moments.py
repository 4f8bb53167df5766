"""Moments of a stream of features."""

import numpy as np
import pytest

from dd.errors import DDError
from dd.metrics.moments import ClassSpread, Moments, split_by_group
from tests.helpers.toy_metrics import streamed

RNG = np.random.default_rng(0)


def test_streamed_moments_equal_numpy_and_do_not_depend_on_batches(pair):
    x = pair[0] + 1e4  # a mean far from 0 costs naive float32 sums all their digits
    for batch in (1, 37, 5000):
        got = streamed(x, batch).gaussian()
        np.testing.assert_allclose(got.mean, x.astype(np.float64).mean(0), rtol=1e-12)
        np.testing.assert_allclose(got.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-7, atol=1e-9)


def test_memory_does_not_grow_with_the_number_of_images():
    short, long = Moments(8, 100), Moments(8, 100_000)
    for _ in range(1000):
        long.add(np.ones((100, 8), dtype=np.float32))
    assert long._products.nbytes == short._products.nbytes
    assert long.count == 100_000


def test_groups_cut_a_stream_into_consecutive_parts():
    parts = [split_by_group(np.arange(s, min(s + 7, 30)), s, 30, 4) for s in range(0, 30, 7)]
    groups = [(g, int(i)) for part in parts for g, rows in part for i in rows]
    assert [i for _, i in groups] == list(range(30))
    assert [g for g, _ in groups] == sorted(g for g, _ in groups)
    assert set(np.bincount([g for g, _ in groups])) <= {7, 8}


def test_jackknife_of_the_mean_is_the_standard_error():
    x = RNG.normal(size=(2000, 3)) * 2
    error = streamed(x).jackknife(lambda g: float(g.mean[0]))
    assert error == pytest.approx(2 / np.sqrt(2000), rel=0.5)


def test_class_spread_is_the_pooled_variance():
    labels = RNG.integers(0, 4, 500)
    x = RNG.normal(size=(500, 5)) + 10 * labels[:, None]
    spread = ClassSpread(5, 4, 500)
    for start in range(0, 500, 61):
        spread.add(x[start : start + 61], labels[start : start + 61])
    expected = sum(np.square(x[labels == c] - x[labels == c].mean(0)).sum() for c in range(4)) / (500 - 4)
    found = spread.estimate()
    assert found.value == pytest.approx(expected)
    assert 0 < found.error < 0.2 * expected


def test_class_spread_needs_two_of_a_class():
    spread = ClassSpread(2, 3, 3)
    spread.add(np.eye(3, 2), np.arange(3))
    assert spread.estimate() is None
    with pytest.raises(DDError, match="expected classes 0 to 2, got 1 to 3"):
        spread.add(np.eye(2), np.array([1, 3]))
