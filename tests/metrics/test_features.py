"""What extractors give, and what they ask for when their weights are missing."""

import torch

from dd.errors import DDError
from dd.metrics.features import Features, MissingWeights


def test_missing_weights_are_an_error_of_the_user():
    assert issubclass(MissingWeights, DDError)


def test_features_hold_what_the_network_gives():
    found = Features(torch.zeros(2, 3), None)
    assert found.features.shape == (2, 3)
    assert found.logits is None
    assert found.spatial is None
