"""Families by name: plain dicts in, models out.

A family is a folder of dd/models that holds family.py; nothing else has to be told of it. The dicts are what
`dataclasses.asdict` makes of the config classes, so that they pass through JSON and YAML.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any, TypeVar

import torch

from dd.config import FAMILIES
from dd.errors import DDError
from dd.models.base import Student, Teacher, Tokenizer
from dd.models.family import Family

T = TypeVar("T")


@cache
def family(name: str) -> Family:
    """The record of a family. Raises DDError for an unknown one."""
    if name not in FAMILIES:
        raise DDError(f"family: expected one of {', '.join(FAMILIES)}, got {name!r}; docs/add-a-teacher.md adds one")
    found: Family = importlib.import_module(f"dd.models.{name}.family").FAMILY
    return found


def family_of(model: Teacher | Student) -> Family:
    """The record that a teacher or student was built by."""
    for name in FAMILIES:
        if type(model).__module__.startswith(f"dd.models.{name}."):
            return family(name)
    raise DDError(f"student: expected a teacher of {', '.join(FAMILIES)}, got {type(model).__name__}")


def make_config(cls: type[T], values: Mapping[str, Any]) -> T:
    """A config dataclass from a dict; unknown and missing names are refused."""
    try:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:
        known = ", ".join(getattr(cls, "__dataclass_fields__", {}))
        raise DDError(f"{cls.__name__}: expected the settings {known}; got {dict(values)} ({error})") from error


def build_tokenizer(name: str, config: Mapping[str, Any], device: str | torch.device = "cpu") -> Tokenizer:
    """A family's tokenizer with random weights, or none at all on device "meta"."""
    part = family(name).tokenizer
    with torch.device(device):
        tokenizer = part.network(make_config(part.config, config))
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer


def build_teacher(
    name: str, tokenizer: Mapping[str, Any], transformer: Mapping[str, Any], device: str | torch.device = "cpu"
) -> Teacher:
    """A teacher with random weights; its parts are `.tokenizer` and `.transformer`, with official names inside."""
    codes, record = build_tokenizer(name, tokenizer, device), family(name)
    with torch.device(device):
        network = record.transformer.network(make_config(record.transformer.config, transformer))
        return record.teacher(network, codes)


def transformer_config(name: str, tokenizer: Tokenizer, given: Mapping[str, Any], **known: Any) -> dict[str, Any]:
    """A transformer's settings with those that follow from its tokenizer and from what else is known.

    Raises DDError for a given size that contradicts them.
    """
    follows = family(name).transformer_sizes(tokenizer) | known
    for key, value in follows.items():
        got = given.get(key, value)
        if (list(got) if isinstance(got, list | tuple) else got) != value:
            raise DDError(f"config.{key}: expected {value}, as its tokenizer and data have it, got {got}: leave it out")
    return {**given, **follows}


def build_student(name: str, config: Mapping[str, Any], device: str | torch.device = "cpu") -> Student:
    """A student with random weights; its state dict has the official names."""
    record = family(name)
    with torch.device(device):
        return record.build_student(make_config(record.student.config, config))


def student_config(teacher: Teacher, layers: int | None = None, **options: Any) -> dict[str, Any]:
    """The config of a student for a teacher: its transformer's sizes, a depth of one's own, options of the student."""
    record = family_of(teacher)
    config = asdict(teacher.get_submodule("transformer").config)  # type: ignore[call-overload]
    config |= record.from_tokenizer(teacher.tokenizer)
    return config | ({} if layers is None else {record.depth: layers}) | options
