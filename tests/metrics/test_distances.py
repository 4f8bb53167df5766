"""Every metric against an independent implementation on the same features, and in the cases that are known to trap."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dd.errors import DDError
from dd.metrics import distances
from dd.metrics.moments import Gaussian
from tests.helpers.toy_metrics import gaussian, streamed

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def few_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "KID_SUBSETS", 3)


def test_jackknife_of_the_distance_is_its_spread_over_samples():
    reference = gaussian(RNG.normal(size=(4000, 6)))
    estimates = [distances.frechet_estimate(streamed(RNG.normal(size=(800, 6)) + 0.3), reference) for _ in range(30)]
    spread = np.std([e.value for e in estimates], ddof=1)
    assert np.mean([e.error for e in estimates]) == pytest.approx(spread, rel=0.5)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused(count):
    with pytest.raises(DDError, match=f"expected at least 2 images, got {count}"):
        streamed(np.zeros((count, 3)), 1).gaussian()


def test_frechet_equals_the_eigenvalue_form(pair):
    a, b = map(gaussian, pair)
    assert distances.frechet(a, b) == pytest.approx(distances.frechet_by_eigenvalues(a, b), rel=1e-6)


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    a = Gaussian(9, np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    b = Gaussian(9, np.array([1.0, 2.0, 0.0]), np.diag([4.0, 4.0, 1.0]))
    assert distances.frechet(a, b) == pytest.approx(5 + 1 + 0 + 4)


def test_identical_sets_have_distance_zero(pair):
    a, _ = pair
    assert distances.frechet(gaussian(a), gaussian(a)) == pytest.approx(0, abs=1e-4)
    unit = RNG.normal(size=(600, 16)).astype(np.float32)
    assert -0.05 < distances.kernel(unit, unit).value <= 0  # unbiased: the zero pairs of a set with itself pull down
    precision, recall = distances.precision_recall(torch.from_numpy(a), torch.from_numpy(a))
    assert (precision.value, recall.value) == (1, 1)


def test_rank_deficient_covariances_give_the_right_distance():
    few, many = RNG.normal(size=(10, 64)), RNG.normal(size=(12, 64)) + 1
    a, b = gaussian(few), gaussian(many)
    # Tr (S_a S_b)^(1/2) is the nuclear norm of X_a^T X_b with the centred samples X: no root of a singular matrix
    xa, xb = (few - few.mean(0)) / 3, (many - many.mean(0)) / np.sqrt(11)
    nuclear = np.linalg.svd(xa @ xb.T, compute_uv=False).sum()
    expected = np.square(few.mean(0) - many.mean(0)).sum() + np.square(xa).sum() + np.square(xb).sum() - 2 * nuclear
    assert distances.frechet(a, b) == pytest.approx(expected, rel=2e-3)


def test_features_of_two_widths_are_refused():
    with pytest.raises(DDError, match="features of one width, got 3 and 4"):
        distances.frechet(Gaussian(2, np.zeros(3), np.eye(3)), Gaussian(2, np.zeros(4), np.eye(4)))


def kernel_by_hand(a: NDArray, b: NDArray) -> float:
    """The unbiased MMD^2 of (x.y / F + 1)^3 over all pairs."""
    n, m, width = len(a), len(b), a.shape[1]
    k = lambda x, y: (x.astype(np.float64) @ y.T.astype(np.float64) / width + 1) ** 3  # noqa: E731
    aa, bb = k(a, a), k(b, b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return within - 2 * k(a, b).mean()


def test_kernel_distance_equals_the_unbiased_estimator(pair):
    a, b = pair[0][:600], pair[1][:600]
    found = distances.kernel(a, b)
    assert found.value == pytest.approx(kernel_by_hand(a, b), rel=1e-4)  # subsets of all 600: no sampling
    assert found.error > 0


def test_kernel_distance_is_reproducible_and_leaves_numpy_alone(pair):
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert distances.kernel(*pair, seed=3) == distances.kernel(*pair, seed=3)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_inception_score_equals_the_formula_in_any_batches():
    logits = RNG.normal(size=(1000, 10)).astype(np.float32) * 3
    scores = []
    for part in np.split(logits.astype(np.float64), 10):
        p = np.exp(part) / np.exp(part).sum(1, keepdims=True)
        scores.append(np.exp((p * np.log(p / p.mean(0))).sum(1).mean()))
    score = distances.InceptionScore(1000)
    for start in range(0, 1000, 33):
        score.add(logits[start : start + 33])
    found = score.estimate()
    assert found.value == pytest.approx(np.mean(scores), rel=1e-6)
    assert found.error == pytest.approx(np.std(scores, ddof=1) / np.sqrt(10), rel=1e-6)
    assert distances.InceptionScore(10).estimate() is None


def precision_by_hand(a: NDArray, b: NDArray, k: int = 3) -> float:
    """Share of a's points inside the k-th neighbour ball of some point of b."""
    to_b = np.linalg.norm(a[:, None] - b[None], axis=2)
    radius = np.sort(np.linalg.norm(b[:, None] - b[None], axis=2), axis=1)[:, k]
    return float((to_b <= radius).any(1).mean())


def test_precision_and_recall_equal_the_definition(pair):
    a, b = pair[0][:300], pair[1][:280]
    precision, recall = distances.precision_recall(torch.from_numpy(a), torch.from_numpy(b))
    assert precision.value == pytest.approx(precision_by_hand(a, b), abs=0.005)
    assert recall.value == pytest.approx(precision_by_hand(b, a), abs=0.005)
    assert precision.error is not None


def test_mode_collapse_has_precision_one_and_recall_near_zero():
    real = RNG.normal(size=(500, 8))
    collapsed = real[7] + 1e-3 * RNG.normal(size=(500, 8))
    precision, recall = distances.precision_recall(torch.from_numpy(collapsed).float(), torch.from_numpy(real).float())
    assert precision.value == 1
    assert recall.value <= 0.01


def test_paired_distance_is_zero_for_the_same_and_one_for_unrelated_images():
    labels = torch.arange(1000) % 10
    features = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0)) + 5 * labels[:, None]
    other = torch.randn(1000, 8, generator=torch.Generator().manual_seed(1)) + 5 * labels[:, None]
    assert distances.paired_distance(features, features, labels).value == 0
    unrelated = distances.paired_distance(features, other, labels)
    assert unrelated.value == pytest.approx(1, abs=4 * unrelated.error)


def test_shuffling_within_classes_has_no_fixed_points():
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 1])
    others = distances.shuffle_within(labels, 7)
    assert (labels[others] == labels).all()
    assert [i for i in range(7) if others[i] == i] == [3]  # the only one of its class
    assert sorted(others.tolist()) == list(range(7))
    assert distances.paired_distance(torch.randn(3, 2), torch.randn(3, 2), torch.arange(3)) is None
