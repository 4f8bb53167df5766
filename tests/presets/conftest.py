"""What the tests of plans share."""

import pytest

from dd.config import Experiment, load_experiment


@pytest.fixture(scope="module")
def small() -> Experiment:
    return load_experiment("var-fashion")
