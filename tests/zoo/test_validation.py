"""Images held out of the training split, and their reference; codes that a decoder gets wrong on purpose."""

import numpy as np
import pytest
import torch

from dd.datasets.packed import ImageSet, save_images
from dd.errors import DDError
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from tests.helpers.small.zoo_params import PARAMS
from zoo import dataset, reference, validation
from zoo.settings import Zoo


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
