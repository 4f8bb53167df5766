"""The git helper: commits, changes, and folders without git."""

import subprocess
from pathlib import Path

import pytest

from dd.errors import DDError
from dd.system.git import demand_commit, demand_git, demand_repository, git, revision

WHO = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")


def test_a_commit_and_its_changes(tmp_path: Path):
    for words in (["init", "-q"], ["add", "-A"], [*WHO, "commit", "-q", "--allow-empty", "-m", "one"]):
        (tmp_path / "code.py").write_text("1")
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert revision(tmp_path) == commit
    (tmp_path / "code.py").write_text("2")
    assert revision(tmp_path) == f"{commit}-dirty"
    assert revision(tmp_path, "*.yaml") == commit
    with pytest.raises(DDError, match=r"^git cannot show that revision \(.*nothere.*\): name another$"):
        demand_git(tmp_path, "show", "nothere", else_do="name another")


def test_outside_git(tmp_path: Path):
    assert revision(tmp_path) is None


def test_a_repository_without_a_commit(tmp_path: Path):
    demand_commit(tmp_path)  # no git is fine, where git is not needed
    with pytest.raises(DDError, match=r"^expected a git repository, found none in"):
        demand_repository(tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    demand_repository(tmp_path)
    with pytest.raises(DDError, match=r"^expected a commit in the git repository of .*, found none: `git add --all"):
        demand_commit(tmp_path)
    subprocess.run(["git", *WHO, "commit", "-q", "--allow-empty", "-m", "one"], cwd=tmp_path, check=True)
    demand_commit(tmp_path)
