"""Pictures taken together: shifts, trajectory points, and the terms that are asked for."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from dd.config import SecondPhaseConfig
from dd.distillation.frechet import shifted
from dd.distillation.matching import MatchingLoss, PictureFeatures, features_of
from dd.metrics.classifier import ClassifierConfig, SmallClassifier

BOTH = SecondPhaseConfig(steps=100, frechet=0.5, frechet_memory=8, within=2.0, within_memory=8)
CLASSES = torch.arange(8) % 2


def matching(points=(0,), second=BOTH, seen=None):
    generator = torch.Generator().manual_seed(0)

    def features(images):
        if seen is not None:
            seen.append(images)
        return images.mean((2, 3)), images[:, :, 0].flatten(1), images[:, :, :, 0].flatten(1)

    pictures = torch.rand(20, 3, 5, 5, generator=generator)
    given = PictureFeatures(features, features(pictures), torch.arange(20) % 2)
    return MatchingLoss(given, points, second, lambda part: part)


def test_the_shifts_go_on_from_batch_to_batch():
    """A resumed run continues with the shift that is next."""
    seen, points = [], torch.zeros(8, dtype=torch.int64)
    loss, other = matching(seen=seen), matching(seen=seen)
    seen.clear()
    images = torch.rand(8, 3, 5, 5)
    for _ in range(2):
        loss(images, points, CLASSES)
    assert torch.equal(seen[1], shifted(images, 8))
    other.load_state_dict(loss.state_dict())
    other(images, points, CLASSES)
    assert torch.equal(seen[2], shifted(images, 16))


def test_only_the_terms_that_are_asked_for():
    images, points = torch.rand(8, 3, 5, 5), torch.zeros(8, dtype=torch.int64)
    assert list(matching()(images, points, CLASSES)) == ["frechet", "within"]
    alone = SecondPhaseConfig(steps=100, within=2.0, within_memory=8)
    assert list(matching(second=alone)(images, points, CLASSES)) == ["within"]


def test_terms_are_means_over_trajectory_points_and_sets_of_features_times_their_weights():
    points = torch.tensor([0, 3, 0, 3, 0, 3, 0, 3])
    loss = matching((0, 3))
    images = torch.rand(8, 3, 5, 5)
    loss(images, points, CLASSES)
    assert [(part.bank_classes >= 0).sum() for part in loss.withins] == [4, 4, 4, 4]
    first, second = loss.features(shifted(images, 8))[1:]
    sets = [(features[points == point], CLASSES[points == point]) for point in (0, 3) for features in (first, second)]
    each = [part(*given) for given, part in zip(sets, matching_copy(loss).withins, strict=True)]
    assert loss(images, points, CLASSES)["within"].item() == pytest.approx(2.0 * torch.stack(each).mean().item())


def matching_copy(loss):
    other = matching((0, 3))
    other.load_state_dict(loss.state_dict())
    return other


def test_what_a_network_sees():
    """Pooled features for `frechet`; them, three stages on a 4 x 4 grid and 16 x 16 pixels for `within`."""
    network = SmallClassifier(ClassifierConfig(channels=(4, 6, 8))).eval()
    images = torch.rand(2, 3, 32, 32)
    found = features_of(network)(images)
    assert [part.shape[1] for part in found] == [8, 8, 4 * 16, 6 * 16, 8 * 16, 3 * 16 * 16]
    assert torch.equal(found[0], network(images).features)
    assert torch.allclose(found[-1][:, 0], images[:, 0, :2, :2].mean((1, 2)))


def test_a_second_phase_of_nothing_is_refused():
    with pytest.raises(ValidationError, match="pairs, score, frechet and within are all 0"):
        SecondPhaseConfig(steps=100, pairs=0)
