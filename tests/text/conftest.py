"""A tiny encoder of captions."""

import pytest

from dd.text import encoders
from tests.helpers.tiny_text import write_archive


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    pytest.importorskip("transformers", reason='the extra "text" is not installed')
    return encoders.read_minilm(write_archive(tmp_path_factory.mktemp("bert") / "model.zip"))


@pytest.fixture
def packaged(encoder, monkeypatch):
    """The tiny encoder in place of the package's."""
    monkeypatch.setattr(encoders, "_open", lambda name: encoder)
    return encoder
