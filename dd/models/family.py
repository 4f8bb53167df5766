"""What the rest of the project needs to know of a family of models: one record, in the family's own folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dd.models.base import Student, Teacher, Tokenizer


@dataclass(frozen=True)
class Part:
    """A network and the dataclass of its settings."""

    config: type[Any]
    network: Callable[[Any], nn.Module]


@dataclass(frozen=True)
class Reader:
    """Settings from the tensors of a checkpoint. A KeyError says that a tensor is missing: it is another network.

    transformer: (tensors, what the user says of it) to the settings. tokenizer: (tensors, settings of the transformer)
    to the settings. Neither holds what no tensor tells and the user did not say, unless it has a usual value.
    """

    transformer: Callable[[Mapping[str, Tensor], Mapping[str, Any]], dict[str, Any]]
    tokenizer: Callable[[Mapping[str, Tensor], Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """A family, as `FAMILY` in dd/models/<name>/family.py.

    teacher: a transformer and a tokenizer to a Teacher. depth: the setting that holds the number of blocks.
    from_tokenizer: settings of the student that follow from the teacher's tokenizer.
    second_step: where the second of two steps starts by default, as a share of the groups (the paper's choice).
    unit_codes: codes lie on the unit sphere.
    transformer_sizes: settings of the transformer that follow from its tokenizer.
    read: settings of transformer and tokenizer from the tensors of a checkpoint; None: it cannot be imported.
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
    read: Reader | None = None

    def build_student(self, config: Any) -> Student:
        """A student with random weights."""
        student = self.student.network(config)
        assert isinstance(student, Student)
        return student


def count(tensors: Mapping[str, Tensor], stem: str) -> int:
    """How many numbered parts a checkpoint has below a name. Raises KeyError for none."""
    parts = {name[len(stem) + 1 :].split(".")[0] for name in tensors if name.startswith(f"{stem}.")}
    if not parts:
        raise KeyError(f"{stem}.0")
    return len(parts)
