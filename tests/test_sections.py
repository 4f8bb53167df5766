"""Faults of settings in one line."""

import pytest
from pydantic import Field, ValidationError

from dd.sections import Section, faults


class Inner(Section):
    """A section."""

    rate: float = Field(0.1, gt=0)


class Outer(Section):
    """A section with another in it."""

    name: str
    inner: Inner = Inner()


def told(**values) -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return faults(caught.value, {"names"})


def test_every_fault_says_where():
    assert told(name="a", inner={"rate": -1}) == "inner.rate: input should be greater than 0, got -1"
    assert told(inner={"rtae": 1}) == "name: missing; inner.rtae: unknown parameter, did you mean rate?"
    assert told(name=[1]) == "name: input should be a valid string"


def test_values_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Outer(name="a").name = "b"
