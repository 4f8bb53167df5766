"""Streamed statistics of features: float64 sums in groups, so that memory does not grow with the number of images.

The stream is cut into G consecutive groups. Leaving out one group at a time (delete-a-group jackknife) then gives the
standard error of anything that is computed from the sums, without keeping or drawing the images again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dd.errors import DDError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A metric's value and its standard error (None: not known)."""

    value: float
    error: float | None = None


@dataclass(frozen=True)
class Gaussian:
    """count: N; mean: (F,); covariance: (F, F), unbiased."""

    count: int
    mean: Array
    covariance: Array


@dataclass(frozen=True)
class Sums:
    """count N, total (F,) and products (F, F) of features, all about `Moments.shift`."""

    count: int
    total: Array
    products: Array

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.count - other.count, self.total - other.total, self.products - other.products)

    def gaussian(self, shift: Array) -> Gaussian:
        mean = self.total / self.count
        covariance = (self.products - self.count * np.outer(mean, mean)) / (self.count - 1)
        return Gaussian(self.count, mean + shift, covariance)


class Moments:
    """Mean and covariance of a stream of features.

    expected: number of features to come, which cuts the stream into `groups`.
    """

    def __init__(self, width: int, expected: int, groups: int | None = None) -> None:
        self.expected = expected
        # 20 groups of a narrow extractor cost nothing; of Inception (2048) they would take 640 MB.
        wanted = groups or (20 if width <= 512 else 8)
        self.groups = max(1, min(wanted, expected // 2))
        self._counts = np.zeros(self.groups, dtype=np.int64)
        self._totals = np.zeros((self.groups, width))
        self._products = np.zeros((self.groups, width, width))
        self.shift: Array | None = None

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    def add(self, features: NDArray[np.floating]) -> None:
        """Take in (B, F) features."""
        x = np.asarray(features, dtype=np.float64)
        if self.shift is None:
            self.shift = x.mean(0)  # sums about a nearby point lose no digits to a large mean
        x = x - self.shift
        for group, part in split_by_group(x, self.count, self.expected, self.groups):
            self._counts[group] += len(part)
            self._totals[group] += part.sum(0)
            self._products[group] += part.T @ part

    def sums(self) -> Sums:
        return Sums(self.count, self._totals.sum(0), self._products.sum(0))

    def gaussian(self) -> Gaussian:
        """Mean and covariance of everything. Raises DDError for fewer than two features."""
        if self.count < 2 or self.shift is None:
            raise DDError(f"expected at least 2 images, got {self.count}: a distance needs a sample")
        return self.sums().gaussian(self.shift)

    def jackknife(self, statistic: Callable[[Gaussian], float]) -> float | None:
        """Standard error of `statistic` by leaving out each group; None with fewer than two groups."""
        used = np.flatnonzero(self._counts)
        if len(used) < 2 or self.shift is None:
            return None
        whole = self.sums()
        left_out = [whole - Sums(int(self._counts[g]), self._totals[g], self._products[g]) for g in used]
        return jackknife_error([statistic(sums.gaussian(self.shift)) for sums in left_out])


class ClassSpread:
    """Within-class feature variance of a stream: the mean over images of |f - mean of its class|^2 (unbiased)."""

    def __init__(self, width: int, classes: int, expected: int, groups: int = 10) -> None:
        self.expected, self.groups = expected, max(1, min(groups, expected // 2))
        self._seen = 0
        self._counts = np.zeros((self.groups, classes))
        self._totals = np.zeros((self.groups, classes, width))
        self._squares = np.zeros((self.groups, classes))

    def add(self, features: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
        """Take in (B, F) features and their (B,) classes."""
        classes = self._counts.shape[1]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise DDError(f"expected classes 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}")
        x = np.asarray(features, dtype=np.float64)
        rows = np.arange(len(x))
        for group, part in split_by_group(rows, self._seen, self.expected, self.groups):
            np.add.at(self._counts[group], labels[part], 1)
            np.add.at(self._totals[group], labels[part], x[part])
            np.add.at(self._squares[group], labels[part], np.square(x[part]).sum(1))
        self._seen += len(x)

    def estimate(self) -> Estimate | None:
        """The variance and its error; None where no class has two images."""
        whole = self._counts.sum(0), self._totals.sum(0), self._squares.sum(0)
        value = _within_variance(*whole)
        if value is None:
            return None
        parts = [
            _within_variance(whole[0] - self._counts[g], whole[1] - self._totals[g], whole[2] - self._squares[g])
            for g in range(self.groups)
            if self._counts[g].any()
        ]
        known = [part for part in parts if part is not None]
        return Estimate(value, jackknife_error(known) if len(known) == len(parts) > 1 else None)


def _within_variance(counts: Array, totals: Array, squares: Array) -> float | None:
    """Pooled variance: (N - classes) degrees of freedom. counts (C,), totals (C, F), squares (C,)."""
    used = counts > 0
    freedom = counts[used].sum() - used.sum()
    if freedom < 1:
        return None
    scatter = squares[used] - np.square(totals[used]).sum(1) / counts[used]
    return float(scatter.sum() / freedom)


def jackknife_error(values: list[float]) -> float:
    """Standard error from G leave-one-group-out values (Quenouille, Tukey)."""
    x = np.asarray(values)
    return float(np.sqrt((len(x) - 1) / len(x) * np.square(x - x.mean()).sum()))


def split_by_group(rows: NDArray, start: int, expected: int, groups: int) -> list[tuple[int, NDArray]]:
    """Cut rows start, start + 1, ... of a stream of `expected` where its groups change: (group, rows) pairs."""
    if not len(rows):
        return []
    index = np.minimum((np.arange(start, start + len(rows)) * groups) // max(expected, 1), groups - 1)
    cuts = np.flatnonzero(np.diff(index)) + 1
    return [(int(index[i]), part) for i, part in zip((0, *cuts), np.split(rows, cuts), strict=True)]
