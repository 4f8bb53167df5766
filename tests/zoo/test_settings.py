"""The zoo's settings."""

import pytest
from pydantic import ValidationError

from tests.helpers.paths import ROOT
from tests.helpers.small.zoo_params import PARAMS
from zoo import settings
from zoo.settings import Zoo, load_settings


def test_nothing_of_ones_own_ships():
    """README's `dvc repro zoo/dvc.yaml` trains what is the user's and nothing else."""
    mine = settings.load_settings(ROOT / "zoo" / "params.yaml")
    assert not any(getattr(mine, group) for group in settings.Zoo.model_fields)


def test_a_reference_needs_its_extractor():
    for name, dataset in (("mine", "other"), ("other", "mine")):
        message = rf"references\.{name}: expected an extractor '{name}' and a data set {dataset}"
        with pytest.raises(ValidationError, match=message):
            Zoo.model_validate({**PARAMS, "references": {name: {"dataset": dataset}}})


def test_every_measuring_extractor_has_a_reference_and_no_other():
    settings = load_settings()
    assert set(settings.references) <= set(settings.extractors)
    assert not [name for name in settings.references if name.endswith(("-perceptual", "-reader"))]


def test_a_validation_needs_a_split_and_a_reference():
    assert set(load_settings().validations) <= set(load_settings().references)
    for entry in ({"mine": {"dataset": "mine"}}, {"other": {"dataset": "mine"}}):
        message = rf"validations\.{next(iter(entry))}: expected a reference '{next(iter(entry))}', and a data set with"
        with pytest.raises(ValidationError, match=message):
            Zoo.model_validate({**PARAMS, "validations": entry})
