"""A tiny teacher of each family, and its pairs."""

import pytest

from tests.helpers.tiny import tiny_pairs, tiny_teacher

FAMILIES = ("llamagen", "var")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def teacher(family):
    return tiny_teacher(family)


@pytest.fixture(scope="module")
def pairs(teacher):
    return tiny_pairs(teacher, 32)
