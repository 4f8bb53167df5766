"""Fixtures of a toy evaluation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.toy_metrics import evaluation, extractor, few_subsets, folder, reference

__all__ = ["evaluation", "extractor", "few_subsets", "folder", "reference"]


@pytest.fixture(scope="module")
def pair() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two sets of features of nearby distributions."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(16, 16))
    a = rng.normal(size=(1200, 16)) @ mix
    b = rng.normal(size=(1100, 16)) @ (mix * 1.1) + 0.3
    return a.astype(np.float32), b.astype(np.float32)
