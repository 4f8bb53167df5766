"""Families by name: plain dicts in, models out.

The dicts are what `dataclasses.asdict` makes of the config classes, so that they pass through JSON and YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import torch

from dd.errors import DDError
from dd.models.base import Student, Teacher, Tokenizer
from dd.models.llamagen.student import DDGPTConfig, DDLlamaGen
from dd.models.llamagen.teacher import GPT, LlamaGenTeacher
from dd.models.llamagen.tokenizer import VQConfig, VQTokenizer
from dd.models.llamagen.transformer import GPTConfig
from dd.models.var.student import DDVAR, DDVARConfig
from dd.models.var.teacher import VAR, VARTeacher
from dd.models.var.tokenizer import MultiScaleConfig, MultiScaleTokenizer
from dd.models.var.transformer import VARConfig

FAMILIES = ("llamagen", "var")
T = TypeVar("T")


def make_config(cls: type[T], values: Mapping[str, Any]) -> T:
    """A config dataclass from a dict; unknown and missing names are refused."""
    try:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:
        known = ", ".join(getattr(cls, "__dataclass_fields__", {}))
        raise DDError(f"{cls.__name__}: expected the settings {known}; got {dict(values)} ({error})") from error


def check_family(family: str) -> None:
    """Refuse an unknown family."""
    if family not in FAMILIES:
        raise DDError(f"family: expected one of {', '.join(FAMILIES)}, got {family!r}; docs/add-a-teacher.md adds one")


def build_tokenizer(family: str, config: Mapping[str, Any], device: str | torch.device = "cpu") -> Tokenizer:
    """A tokenizer with random weights, or none at all on device "meta"."""
    check_family(family)
    with torch.device(device):
        if family == "var":
            return MultiScaleTokenizer(make_config(MultiScaleConfig, config))
        return VQTokenizer(make_config(VQConfig, config))


def build_teacher(
    family: str, tokenizer: Mapping[str, Any], transformer: Mapping[str, Any], device: str | torch.device = "cpu"
) -> Teacher:
    """A teacher with random weights; its parts are `.tokenizer` and `.transformer`, with official names inside."""
    codes = build_tokenizer(family, tokenizer, device)
    with torch.device(device):
        if isinstance(codes, MultiScaleTokenizer):
            return VARTeacher(VAR(make_config(VARConfig, transformer)), codes)
        assert isinstance(codes, VQTokenizer)
        return LlamaGenTeacher(GPT(make_config(GPTConfig, transformer)), codes)


def build_student(family: str, config: Mapping[str, Any], device: str | torch.device = "cpu") -> Student:
    """A student with random weights; its state dict has the official names."""
    check_family(family)
    with torch.device(device):
        if family == "var":
            return DDVAR(make_config(DDVARConfig, config))
        return DDLlamaGen(make_config(DDGPTConfig, config))


def student_config(teacher: Teacher, layers: int | None = None, **options: Any) -> dict[str, Any]:
    """The config of a student for a teacher: its transformer's sizes, a depth of one's own, options of the student."""
    if isinstance(teacher, VARTeacher):
        config = asdict(teacher.transformer.config)
        config["share_quant_resi"] = teacher.tokenizer.config.share_quant_resi
        depth = "depth"
    elif isinstance(teacher, LlamaGenTeacher):
        config = asdict(teacher.transformer.config)
        config["codebook_dim"] = teacher.codebook.shape[1]
        depth = "n_layer"
    else:
        raise DDError(f"student: expected a teacher of {', '.join(FAMILIES)}, got {type(teacher).__name__}")
    return config | ({} if layers is None else {depth: layers}) | options
