"""Two sets of images from the same noise: is one nearer to the reference by more than noise?

`dd-cli compare` asks it. The images are resampled (Efron 1979), the same ones of both sets each time, so that what both
have from their noise and classes cancels in the difference of the two distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dd.errors import DDError
from dd.evaluation.measure import Evaluation
from dd.metrics.distances import frechet_by_eigenvalues, paired_distance
from dd.metrics.images import RgbBatches
from dd.metrics.moments import Gaussian

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """Distances of two sets, a and b, and their difference b - a with its bootstrap.

    low, high: the interval of 95 %; p_value: how often resampling alone moves the difference as far; alike: feature
    distance of the two images of one noise over that of two noises (0: the same images, 1: the noise says nothing).
    """

    metric: str
    images: int
    resamples: int
    a: float
    b: float
    difference: float
    error: float
    low: float
    high: float
    p_value: float
    alike: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the difference is more than noise."""
        return self.p_value < 1 - CONFIDENCE

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        return {**asdict(self), "significant": self.significant}


def compare(
    evaluation: Evaluation, a: Tensor, b: Tensor, labels: Tensor | None, resamples: int = 500, seed: int = 0
) -> Comparison:
    """a, b: (N, 3, H, W) uint8, image i of both from one noise and class. Raises DDError for sets that are no pairs."""
    if a.shape != b.shape:
        raise DDError(f"expected two sets of alike images, got {tuple(a.shape)} and {tuple(b.shape)}: draw both alike")
    if evaluation.extractor is None or evaluation.reference is None:
        raise DDError(f"compare: {evaluation.missing}")
    rgb = RgbBatches(evaluation.extractor.image_size)
    extractor = evaluation.extractor
    first, second = (torch.cat([extractor(rgb(part)).features for part in one.split(250)]) for one in (a, b))
    alike = paired_distance(first, second, labels, seed)
    found = bootstrap(first.double().numpy(), second.double().numpy(), evaluation.reference.gaussian, resamples, seed)
    name = evaluation.protocol.metric_name(len(a))
    return Comparison(name, len(a), resamples, *found, None if alike is None else alike.value)


def bootstrap(
    a: NDArray[np.float64], b: NDArray[np.float64], reference: Gaussian, resamples: int, seed: int = 0
) -> tuple[float, float, float, float, float, float, float]:
    """Fields a to p_value of a `Comparison`; a, b: features (N, F).

    A resampled distance is biased upwards, alike for both sets; the spread is taken about the resamples' own mean.
    """
    ones = np.ones(len(a))
    value_a, value_b = (frechet_by_eigenvalues(_weighted(one, ones), reference) for one in (a, b))
    difference = value_b - value_a
    drawn = np.fromiter(_differences(a, b, reference, resamples, seed), dtype=float, count=resamples)
    spread = drawn - drawn.mean()
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = difference - np.percentile(spread, [100 - tail, tail])
    p_value = (1 + int((np.abs(spread) >= abs(difference)).sum())) / (resamples + 1)
    return value_a, value_b, difference, float(spread.std(ddof=1)), float(low), float(high), p_value


def _differences(
    a: NDArray[np.float64], b: NDArray[np.float64], reference: Gaussian, resamples: int, seed: int
) -> Iterator[float]:
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        counts = rng.multinomial(len(a), np.full(len(a), 1 / len(a))).astype(float)
        yield frechet_by_eigenvalues(_weighted(b, counts), reference) - frechet_by_eigenvalues(
            _weighted(a, counts), reference
        )


def _weighted(features: NDArray[np.float64], counts: NDArray[np.float64]) -> Gaussian:
    """Mean and covariance of features (N, F), each taken `counts` times."""
    total = counts.sum()
    mean = counts @ features / total
    centred = features - mean
    return Gaussian(int(total), mean, (centred * counts[:, None]).T @ centred / (total - 1))
