"""What the rest of the project needs to know of a family of models: one record, in the family's own folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from dd.models.base import Student, Teacher, Tokenizer


@dataclass(frozen=True)
class Part:
    """A network and the dataclass of its settings."""

    config: type[Any]
    network: Callable[[Any], nn.Module]


@dataclass(frozen=True)
class Family:
    """A family, as `FAMILY` in dd/models/<name>/family.py.

    teacher: a transformer and a tokenizer to a Teacher. depth: the setting that holds the number of blocks.
    from_tokenizer: settings of the student that follow from the teacher's tokenizer.
    second_step: where the second of two steps starts by default, as a share of the groups (the paper's choice).
    unit_codes: codes lie on the unit sphere.
    transformer_sizes: settings of the transformer that follow from its tokenizer.
    """

    name: str
    tokenizer: Part
    transformer: Part
    student: Part
    teacher: Callable[[Any, Any], Teacher]
    depth: str
    from_tokenizer: Callable[[Tokenizer], dict[str, Any]]
    second_step: float
    unit_codes: bool = False
    transformer_sizes: Callable[[Tokenizer], dict[str, Any]] = lambda tokenizer: {}

    def build_student(self, config: Any) -> Student:
        """A student with random weights."""
        student = self.student.network(config)
        assert isinstance(student, Student)
        return student
