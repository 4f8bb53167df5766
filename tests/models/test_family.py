"""One record a family: every one of them is complete."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from dd.config import FAMILIES
from dd.models import registry
from dd.models.base import Student, Tokenizer
from dd.models.family import count
from tests.helpers.paths import ROOT


@pytest.mark.parametrize("name", ["var", "llamagen", "janus"])
def test_a_record_is_whole(name):
    record = registry.family(name)
    assert record.name == name
    assert issubclass(record.tokenizer.network, Tokenizer)
    assert issubclass(record.student.network, Student)
    assert record.depth in {field.name for field in dataclasses.fields(record.transformer.config)}
    assert 0 < record.second_step < 1
    assert record.teacher.__module__.startswith(f"dd.models.{name}.")


def test_every_folder_is_a_family():
    folders = {path.parent.name for path in Path(ROOT / "dd" / "models").glob("*/family.py")}
    assert set(FAMILIES) == folders == {"var", "llamagen", "janus"}


def test_parts_of_a_checkpoint_are_counted():
    tensors: Mapping[str, torch.Tensor] = {f"blocks.{n}.w": torch.zeros(1) for n in range(11)}
    assert count(tensors, "blocks") == 11
    with pytest.raises(KeyError, match=r"layers\.0"):
        count(tensors, "layers")
