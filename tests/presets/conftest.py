"""What the tests of plans share."""

import pytest

from dd.config import Experiment
from dd.presets import preset_experiment


@pytest.fixture(scope="module")
def small() -> Experiment:
    return preset_experiment("var-fashion")
