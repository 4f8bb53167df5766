"""Names that follow from contents."""

import pytest
from pydantic import BaseModel

from dd.system.identity import fingerprint


class Settings(BaseModel):
    """Some."""

    rate: float = 0.1


def test_it_follows_values_models_and_contents(tmp_path):
    (tmp_path / "file").write_text("one")
    first = fingerprint({"b": 1, "a": 2}, Settings(), tmp_path / "file")
    assert len(first) == 16
    assert fingerprint({"a": 2, "b": 1}, Settings(rate=0.1), tmp_path / "file") == first  # order of keys does not count
    assert fingerprint({"a": 2, "b": 1}, Settings(rate=0.2), tmp_path / "file") != first
    (tmp_path / "file").write_text("two")
    assert fingerprint({"b": 1, "a": 2}, Settings(), tmp_path / "file") != first
    with pytest.raises(TypeError, match="cannot take a fingerprint of a set"):
        fingerprint({1})
