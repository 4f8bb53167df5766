"""Images held out of the training split, and their reference; codes that a decoder gets wrong on purpose."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dd.datasets.packed import ImageSet, save_images
from dd.errors import DDError
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.models.codebook import replace_some
from tests.zoo.test_training import PARAMS
from zoo import dataset, reference, settings, validation
from zoo.settings import Zoo, load_settings


def pictures(count: int, seed: int = 0) -> ImageSet:
    """Random pictures of two classes that take turns."""
    random = np.random.default_rng(seed)
    return ImageSet(random.integers(0, 255, (count, 8, 8, 3), dtype=np.uint8), np.arange(count) % 2, ("dark", "light"))


def test_the_last_images_of_each_class_are_held_out():
    data = pictures(20)
    split = dataset.hold_out(data, 6)
    assert {name: len(part) for name, part in split.items()} == {"train": 14, "validation": 6}
    assert np.array_equal(split["validation"].images, data.images[-6:])
    assert np.array_equal(split["train"].images, data.images[:14])
    assert np.bincount(split["validation"].labels).tolist() == [3, 3]


@pytest.mark.parametrize("count", [1, 20, 40])
def test_a_split_that_leaves_nothing_is_refused(count):
    with pytest.raises(DDError, match=rf"validation: expected 1 to 9 images of class 'dark', got {count // 2}"):
        dataset.hold_out(pictures(20), count)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A zoo of one data set with a validation split, its extractor and its reference."""
    entries = {"mine": {**PARAMS["datasets"]["mine"], "validation": 6}}
    made = Zoo.model_validate({**PARAMS, "datasets": entries, "validations": {"mine": {"dataset": "mine"}}})
    for module in (reference, validation):
        monkeypatch.setattr(module, "HERE", tmp_path)
        monkeypatch.setattr(module, "load_settings", lambda: made)
    for name, part in (dataset.hold_out(pictures(20), 6) | {"test": pictures(10, seed=1)}).items():
        save_images(tmp_path / "data" / "mine" / name, part)
    torch.manual_seed(0)
    SmallClassifier(ClassifierConfig(2, 8, (4, 5), (0, 0))).save(tmp_path / "mine" / "extractor.safetensors")
    reference.main("mine")
    return tmp_path


def test_its_reference_is_of_those_images(zoo):
    assert validation.main("mine") == "wrote zoo/mine/validation.safetensors: 6 images"
    assert not list(zoo.rglob(".validation*"))


def test_images_of_the_reported_reference_are_refused(zoo):
    save_images(zoo / "data" / "mine" / "validation", pictures(10, seed=1).first(6))
    with pytest.raises(DDError, match=r"6 of 6 images are in reference.safetensors too, which the table is measured"):
        validation.main("mine")
    assert not (zoo / "mine" / "validation.safetensors").exists()


def test_a_validation_needs_a_split_and_a_reference():
    assert set(load_settings().validations) <= set(load_settings().references)
    for entry in ({"mine": {"dataset": "mine"}}, {"other": {"dataset": "mine"}}):
        message = rf"validations\.{next(iter(entry))}: expected a reference '{next(iter(entry))}', and a data set with"
        with pytest.raises(ValidationError, match=message):
            Zoo.model_validate({**PARAMS, "validations": entry})


def test_a_share_of_the_codes_is_replaced_by_others_of_the_batch():
    codes = torch.randn(4, 3, 8, 8, requires_grad=True)
    wrong = replace_some(codes, 0.25, torch.Generator().manual_seed(0))
    same = (wrong == codes).all(1)
    assert 0.65 < same.float().mean() < 0.85
    known = {tuple(row) for row in codes.detach().permute(0, 2, 3, 1).flatten(0, 2).tolist()}
    assert {tuple(row) for row in wrong.detach().permute(0, 2, 3, 1).flatten(0, 2).tolist()} <= known
    wrong.sum().backward()  # what is replaced learns nothing
    assert torch.equal(codes.grad[:, 0] != 0, same)
    assert settings.TokenizerSettings.model_fields["replaced"].default == 0
