"""What the tests of several benches share."""

import json

import pytest
from typer.testing import CliRunner

from dd.cli.main import app
from tests.helpers.toy_metrics import extractor, few_subsets, folder, reference
from tests.helpers.toy_project import make_project

__all__ = ["extractor", "few_subsets", "folder", "reference"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    return make_project(tmp_path)


def bench(*arguments: str) -> list[dict]:
    result = CliRunner().invoke(app, ["bench", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)
