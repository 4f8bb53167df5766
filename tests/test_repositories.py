"""The project in an unpacked archive and in a folder of another repository."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from dd.errors import DDError
from dd.system import git
from pipeline import graph
from tests.helpers.paths import ROOT
from zoo.own import steps

PARTS = ("Makefile", ".dvc/config", "dvc.yaml", "params.yaml", "zoo/dvc.yaml", "zoo/params.yaml")
TWO_COMMANDS = "`git init`, then `git add --all && git commit --message start`"


def alone() -> dict[str, str]:
    """An environment in which git looks at nothing above the temporary folder."""
    return {**os.environ, "GIT_CEILING_DIRECTORIES": "/", "GIT_CONFIG_GLOBAL": os.devnull, "DVC_NO_ANALYTICS": "1"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What `git archive` and a downloaded zip hold of the pipeline: the files, without git."""
    root = tmp_path / "archive"
    with tarfile.open(tmp_path / "archive.tar", "w") as packed:
        for part in PARTS:
            packed.add(ROOT / part, part)
    with tarfile.open(tmp_path / "archive.tar") as packed:
        packed.extractall(root, filter="data")
    return root


def test_an_archive_says_what_is_missing_before_anything_runs(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = shutil.which("make")
    if make:
        done = subprocess.run([make, "demo"], cwd=archive, env=alone(), capture_output=True, text=True)
        assert done.returncode == 2
        first = done.stderr.splitlines()[0]
        assert first == f"error: expected a git repository, found none (DVC needs one): {TWO_COMMANDS}"
        assert not (archive / ".venv").exists()
    said = f"expected a git repository, found none in {archive}"
    with pytest.raises(DDError) as error:
        graph.read(archive)
    assert str(error.value).startswith(said)
    assert str(error.value).endswith(TWO_COMMANDS)
    monkeypatch.setenv("DD_ROOT", str(archive))
    monkeypatch.setattr(steps, "_call", lambda *command: pytest.fail(f"ran {command}"))
    with pytest.raises(DDError) as error:
        steps.run("pets")
    assert str(error.value).startswith(said)


def test_the_two_commands_mend_an_archive(archive: Path) -> None:
    env = {**alone(), "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org"}
    env |= {"GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org"}
    subprocess.run(
        git.START.replace("init", "init -q").replace("commit", "commit -q"), shell=True, cwd=archive, env=env
    )
    git.demand_repository(archive)
    assert "report" in graph.read(archive)


def test_a_folder_of_another_repository_works(archive: Path, tmp_path: Path) -> None:
    """git finds the repository above; DVC's own folder lies in the project."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, env=alone(), check=True)
    git.demand_repository(archive)
    assert "report" in graph.read(archive)
    status = [sys.executable, "-m", "dvc", "status", "--json", "report"]
    done = subprocess.run(status, cwd=archive, env=alone(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"report"' in done.stdout
