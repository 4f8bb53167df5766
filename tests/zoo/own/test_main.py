"""dd-cli images add and remove: what is asked of the plan and the steps."""

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from dd.errors import DDError
from tests.helpers.small.own_images import texts
from zoo.own import steps
from zoo.own.__main__ import app


def run(*words: str):
    return CliRunner().invoke(app, list(words))


def test_a_dry_run_plans_and_writes_nothing(project, monkeypatch):
    before = texts(project)
    monkeypatch.setattr(steps, "write", lambda plan: pytest.fail("wrote"))
    monkeypatch.setattr("zoo.own.plan.make_plan", lambda *_: (SimpleNamespace(lines=lambda: ["3 classes"]), None))
    done = run("add", "pets", str(project / "pictures"), "--dry-run")
    assert done.exit_code == 0, done.output
    assert done.output == "3 classes\n"
    assert texts(project) == before


def test_another_folder_under_a_known_name_is_refused(project, monkeypatch):
    monkeypatch.setattr(steps, "known_folder", lambda name: "/elsewhere")
    with pytest.raises(DDError, match=r"'pets' is in zoo/params.yaml with another folder \(/elsewhere\): choose"):
        raise run("add", "pets", str(project / "pictures")).exception


def test_removing_says_what_went(project, monkeypatch):
    monkeypatch.setattr(steps, "take_out", lambda name, keep: [f"models/{name}/", f"kept: {keep}"])
    done = run("remove", "pets")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[:2] == ["removed models/pets/", "removed kept: False"]
