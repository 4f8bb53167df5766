"""The metrics, as functions of features: clean-fid for FID and KID, torch-fidelity for IS, precision and recall.

Each returns an `Estimate`: the library's value and a standard error, so that a difference of two rows can be judged.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor

from dd.errors import DDError
from dd.metrics.moments import Estimate, Gaussian, Moments, split_by_group

log = logging.getLogger(__name__)

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000  # clean-fid's and the KID paper's setting
NEIGHBOURS = 3  # k of improved precision and recall (Kynkaanniemi et al. 2019)
AGREEMENT = 1e-3  # relative difference of the two Frechet distances beyond which clean-fid's root is not believed


# ------------------------------------------------------------------------------------------------- Frechet distance


def frechet(a: Gaussian, b: Gaussian) -> float:
    """Frechet distance of two Gaussians, by clean-fid.

    d^2 = |mu_a - mu_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2)). The general matrix root that clean-fid takes is
    inaccurate for rank-deficient covariances; it is checked against a root of eigenvalues, which then replaces it
    with a warning.
    """
    from cleanfid.fid import frechet_distance

    if a.mean.shape != b.mean.shape:
        raise DDError(
            f"expected features of one width, got {len(a.mean)} and {len(b.mean)}: use one extractor for both"
        )
    check = frechet_by_eigenvalues(a, b)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            value = float(frechet_distance(a.mean, a.covariance, b.mean, b.covariance))
    except ValueError:  # "Imaginary component": the root of a singular product
        value = float("nan")
    if not abs(value - check) <= AGREEMENT * (1 + abs(check)):
        log.warning("clean-fid's matrix root failed (%.6g, eigenvalues give %.6g): the latter is used", value, check)
        return check
    return value


def frechet_by_eigenvalues(a: Gaussian, b: Gaussian) -> float:
    """The same distance with Tr (S_a S_b)^(1/2) as the sum of roots of the eigenvalues of R S_b R, R = S_a^(1/2)."""
    values, vectors = linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    eigenvalues = linalg.eigvalsh(root @ b.covariance @ root).clip(0)
    difference = a.mean - b.mean
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(difference @ difference + traces - 2 * np.sqrt(eigenvalues).sum())


def frechet_estimate(moments: Moments, reference: Gaussian) -> Estimate:
    """Distance of a stream's moments to a reference, with the jackknife's standard error."""
    error = moments.jackknife(lambda gaussian: frechet_by_eigenvalues(gaussian, reference))
    return Estimate(frechet(moments.gaussian(), reference), error)


# -------------------------------------------------------------------------------------------------- kernel distance


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, from which clean-fid draws its subsets, and put it back afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def kernel(features: NDArray[np.float32], reference: NDArray[np.float32], seed: int = 0) -> Estimate:
    """Kernel distance (KID), by clean-fid: mean over 100 subsets of up to 1,000; error from disjoint groups."""
    from cleanfid.fid import kernel_distance

    size = min(KID_SUBSET_SIZE, len(features), len(reference))
    with _numpy_seed(seed):
        value = kernel_distance(reference, features, num_subsets=KID_SUBSETS, max_subset_size=size)
    groups = min(10, min(len(features), len(reference)) // 50)
    if groups < 2:
        return Estimate(value)
    rng = np.random.default_rng(seed)
    ours, theirs = (
        np.array_split(rng.permutation(len(features)), groups),
        np.array_split(rng.permutation(len(reference)), groups),
    )
    with _numpy_seed(seed):
        parts = [
            kernel_distance(reference[t], features[o], num_subsets=1, max_subset_size=KID_SUBSET_SIZE)
            for o, t in zip(ours, theirs, strict=True)
        ]
    return Estimate(value, float(np.std(parts, ddof=1) / np.sqrt(groups)))


# -------------------------------------------------------------------------------------------------- inception score


class InceptionScore:
    """Inception score by torch-fidelity, one split after the other: only one split's logits are in memory.

    The splits are consecutive (as ADM's evaluator takes them), so images must not come sorted by class.
    """

    def __init__(self, expected: int, splits: int = 10) -> None:
        self.expected, self.splits = expected, max(1, min(splits, expected // 2))
        self._seen = 0
        self._split = 0
        self._rows: list[NDArray] = []
        self._scores: list[float] = []

    def add(self, logits: NDArray[np.floating]) -> None:
        """Take in (B, classes) logits."""
        for split, part in split_by_group(logits, self._seen, self.expected, self.splits):
            if split != self._split:
                self._close()
                self._split = split
            self._rows.append(part)
        self._seen += len(logits)

    def _close(self) -> None:
        from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

        if self._rows:
            logits = torch.from_numpy(np.concatenate(self._rows))
            self._scores.append(isc_features_to_metric(logits, splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN])
        self._rows = []

    def estimate(self) -> Estimate | None:
        """Mean over the splits and its standard error; None before any logits came."""
        self._close()
        if not self._scores:
            return None
        scores = np.asarray(self._scores)
        error = float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None
        return Estimate(float(scores.mean()), error)


# --------------------------------------------------------------------------------------------- precision and recall


def precision_recall(features: Tensor, reference: Tensor) -> tuple[Estimate, Estimate]:
    """Improved precision and recall (k = 3), by torch-fidelity; features (N, F), reference (M, F).

    The errors are those of four disjoint quarters, halved: a quarter sees coarser manifolds, but spreads alike.
    """
    parts = min(len(features), len(reference)) // (4 * 10 * NEIGHBOURS)
    value = _precision_recall(features, reference)
    if parts < 1:
        return Estimate(value[0]), Estimate(value[1])
    quarters = np.asarray([_precision_recall(features[i::4], reference[i::4]) for i in range(4)])
    errors = quarters.std(axis=0, ddof=1) / 2
    return Estimate(value[0], float(errors[0])), Estimate(value[1], float(errors[1]))


def _precision_recall(features: Tensor, reference: Tensor) -> tuple[float, float]:
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    if min(len(features), len(reference)) <= NEIGHBOURS:
        raise DDError(f"expected more than {NEIGHBOURS} images for precision and recall, got {len(features)}")
    found = prc_features_to_metric(
        features.float(),
        reference.float(),
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=2000,
        save_cpu_ram=True,
        verbose=False,
    )
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


# --------------------------------------------------------------------------------------------------- paired distance


def paired_distance(features: Tensor, partners: Tensor, labels: Tensor | None, seed: int = 0) -> Estimate | None:
    """Mean feature distance to one's partner / to the partners of other images of the same class.

    features, partners (N, F): row i of both was drawn from the same noise and class. 0: the same images, 1: the noise
    says nothing about the image. None where no class has two images.
    """
    others = shuffle_within(labels, len(features), seed)
    use = others != torch.arange(len(features))
    if int(use.sum()) < 2:
        return None
    near = (features - partners).norm(dim=1)[use].double()
    far = (features - partners[others]).norm(dim=1)[use].double()
    ratio = near.mean() / far.mean()
    spread = (near - ratio * far).std() / far.mean()  # delta method for a ratio of means
    return Estimate(float(ratio), float(spread / np.sqrt(int(use.sum()))))


def shuffle_within(labels: Tensor | None, count: int, seed: int = 0) -> Tensor:
    """(N,) indices: for each image another one of its class (itself only where it is alone)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator)
    if labels is not None:
        order = order[torch.argsort(labels[order], stable=True)]
    result = torch.empty(count, dtype=torch.int64)
    bounds = [0, count]
    if labels is not None:
        changes = torch.nonzero(labels[order].diff()).flatten() + 1
        bounds = [0, *changes.tolist(), count]
    for start, end in pairwise(bounds):
        members = order[start:end]
        result[members] = members.roll(1)
    return result
