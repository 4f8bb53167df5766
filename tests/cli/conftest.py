"""What the tests of several commands share."""

import sys

import pytest
from typer.testing import CliRunner

from dd.cli.main import app, main
from tests.helpers.small.params import make_params_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a params.yaml and an empty zoo."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setenv("DD_CACHE", str(tmp_path / "cache"))
    return make_params_project(tmp_path)


@pytest.fixture
def cli():
    """Calls dd-cli; gives typer's result."""
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def run(monkeypatch, capsys, *arguments):
    """Exit status, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["dd-cli", *arguments])
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err
