"""The base of every section of params.yaml, and how its faults are told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dd.system.names import near

# Names of samplers, which pydantic puts behind their place in a list.
_TAGS = {
    "real",
    "reconstruction",
    "teacher",
    "dd",
    "dd+teacher",
    "skip",
    "onestep*",
}


class Section(BaseModel):
    """A part of params.yaml: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def faults(error: ValidationError, names: set[str]) -> str:
    """Every fault in one line; names: keys beside those of the sections, to offer for a misspelt one."""
    return "; ".join(_fault(one, names) for one in error.errors())


def _fault(error: Any, names: set[str]) -> str:
    """One pydantic error as 'where: expected, got'."""
    steps = [str(p) for p in error["loc"]]
    where = ".".join(p for i, p in enumerate(steps) if not (p in _TAGS and i > 0 and steps[i - 1].isdigit()))
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown parameter{_nearest(steps[-1], names)}"
    if error["type"] == "missing":
        return f"{where}: missing"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if isinstance(error["input"], dict | list):
        return f"{where}: {message}" if where else message
    return f"{where}: {message}, got {error['input']!r}"


def _nearest(key: str, names: set[str]) -> str:
    """', did you mean lr?' for a misspelt key."""
    known = names.union(*(model.model_fields for model in _sections(Section)))
    close = near(key, sorted(known), most=1)
    return f", did you mean {close[0]}?" if close else ""


def _sections(model: type[Section]) -> Iterator[type[Section]]:
    for other in model.__subclasses__():
        yield other
        yield from _sections(other)
