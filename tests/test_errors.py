"""Errors and the statuses that shells and flows read."""

import re
import signal
import tomllib

from dd import errors
from dd.errors import DDError, Stopped, TemporaryError
from tests.helpers.paths import ROOT


def test_statuses():
    assert TemporaryError.status == 75
    assert Stopped.status == 128 + signal.SIGTERM
    assert issubclass(TemporaryError, DDError)
    assert issubclass(Stopped, DDError)
    assert issubclass(DDError, ValueError)


def test_an_extra_is_installed_from_the_clone(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert errors.install("text") == "pip install -c constraints.txt -e '.[text]'"
    monkeypatch.chdir(tmp_path)
    assert errors.install("text") == f"pip install -c {ROOT / 'constraints.txt'} -e '{ROOT}[text]'"
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "dd" / "errors.py"))  # installed from a wheel
    assert errors.install("text") == "pip install -c constraints.txt -e '.[text]' in a clone of this project"


def test_messages_name_extras_that_there_are():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [path for folder in ("dd", "pipeline", "zoo", "stages") for path in (ROOT / folder).rglob("*.py")]
    asked = {name for path in sources for name in re.findall(r"install\(['\"](\w+)['\"]\)", path.read_text())}
    assert {"text", "app"} <= asked <= set(extras)
