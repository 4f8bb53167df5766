"""Pictures taken together: shifts, trajectory points, and the terms that are asked for."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from dd.config import SecondPhaseConfig
from dd.distillation.frechet import shifted
from dd.distillation.matching import MatchingLoss, PictureFeatures, on_grid

BOTH = SecondPhaseConfig(steps=100, frechet=0.5, frechet_memory=8, energy=2.0, energy_memory=8)
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
    assert list(matching()(images, points, CLASSES)) == ["frechet", "energy"]
    alone = SecondPhaseConfig(steps=100, energy=2.0, energy_memory=8)
    assert list(matching(second=alone)(images, points, CLASSES)) == ["energy"]


def test_terms_are_means_over_trajectory_points_and_sets_of_features_times_their_weights():
    points = torch.tensor([0, 3, 0, 3, 0, 3, 0, 3])
    loss = matching((0, 3))
    images = torch.rand(8, 3, 5, 5)
    loss(images, points, CLASSES)
    assert [(energy.bank_classes >= 0).sum() for energy in loss.energies] == [4, 4, 4, 4]
    first, second = loss.features(shifted(images, 8))[1:]
    sets = [(features[points == point], CLASSES[points == point]) for point in (0, 3) for features in (first, second)]
    each = [energy(*given) for given, energy in zip(sets, matching_copy(loss).energies, strict=True)]
    assert loss(images, points, CLASSES)["energy"].item() == pytest.approx(2.0 * torch.stack(each).mean().item())


def matching_copy(loss):
    other = matching((0, 3))
    other.load_state_dict(loss.state_dict())
    return other


def test_maps_on_a_grid():
    maps = [torch.arange(64.0).view(1, 1, 8, 8), torch.ones(1, 2, 4, 4)]
    first, second = on_grid(maps)
    assert first.shape == (1, 16)
    assert first[0, 0] == torch.tensor([0.0, 1, 8, 9]).mean()
    assert second.shape == (1, 32)


def test_a_second_phase_of_nothing_is_refused():
    with pytest.raises(ValidationError, match="pairs, score, frechet and energy are all 0"):
        SecondPhaseConfig(steps=100, pairs=0)
