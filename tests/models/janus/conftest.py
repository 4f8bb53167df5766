"""Janus and transformers' own, with the same random weights."""

import pytest

from tests.helpers.tiny_janus import whole_model
from tests.parity.janus import CODES, SIZES, our_teacher


@pytest.fixture(scope="module")
def theirs():
    """transformers' whole model, vision tower and all."""
    pytest.importorskip("transformers", reason='the extra "text" is not installed')
    return whole_model(SIZES, CODES)


@pytest.fixture(scope="module")
def teacher(theirs):
    return our_teacher(theirs)
