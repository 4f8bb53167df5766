"""What the tests of several benches share."""

import pytest

from tests.helpers.toy_project import make_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    return make_project(tmp_path)
