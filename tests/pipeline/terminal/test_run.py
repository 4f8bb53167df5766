"""`dd-cli run`: help, dry runs, quiet, places at the end, disks that cannot be written."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.terminal import run as run_command
from pipeline.terminal import run_sweep
from tests.pipeline.conftest import Toy


@pytest.mark.parametrize(
    ("module", "name"),
    [("pipeline.terminal.run", "run"), ("pipeline.terminal.run_sweep", "sweep"), ("pipeline.servers.ui", "ui")],
)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(toy: Toy, module: str, name: str, option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, option], env=toy.env, capture_output=True, text=True, check=True
    )
    assert f"Usage: dd-cli {name} " in done.stdout


def test_a_dry_run_says_what_would_run_and_runs_nothing(toy: Toy) -> None:
    before = (toy.root / "params.yaml").read_bytes()
    output = toy.run("--dry")
    assert "report: unchanged" in output
    assert "0 of 7 stages would run or be restored; nothing has run" in output
    output = toy.run("toy-a", "--dry", "-S", "toy-a.distill.lr=0.25")
    assert "params.yaml: experiments.toy-a.distill.lr=0.25 (was 0.001)" in output
    assert "trajectories@toy-a: unchanged" in output
    assert "distill@toy-a: would run" in output
    assert "evaluate@toy-a: would run" in output
    assert (toy.root / "params.yaml").read_bytes() == before
    assert not toy.log()


def test_the_end_names_the_places_and_quiet_says_no_more(toy: Toy) -> None:
    output = toy.run("--quiet").splitlines()
    assert output[0] == "7 stages: 7 unchanged"
    assert [line.split()[0] for line in output[1:]] == ["results", "report"]
    assert "results/toy-a, results/toy-b" in output[1]
    assert output[2].split() == ["report", "report/report.html"]


def test_pulling_without_a_remote_is_one_line(toy: Toy) -> None:
    output = toy.run("--pull", status=2)
    assert output.startswith("error: expected a DVC remote to pull from, found none; a clone holds what git holds")
    assert "dvc remote add --default NAME URL" in output
    assert len(output.splitlines()) == 1


def test_what_the_remote_lacks_is_said_before_it_is_computed(toy: Toy, tmp_path: Path) -> None:
    toy.dvc("remote", "add", "-q", "--default", "team", str(tmp_path / "remote"))
    toy.dvc("push", "-q", "trajectories@toy-a")
    for folder in ("data", "models", "results", ".dvc/cache"):
        subprocess.run(["rm", "-rf", str(toy.root / folder)], check=True)
    output = toy.run("evaluate@toy-a", "--pull")
    said = next(line for line in output.splitlines() if line.startswith("the remote lacks"))
    assert said.startswith("the remote lacks distill@toy-a")
    assert "trajectories" not in said
    assert output.index("the remote lacks") < output.index("distill@toy-a: ran")
    assert "trajectories@toy-a: restored" in output


@pytest.mark.parametrize(
    ("app", "arguments"),
    [(run_command.app, ["--no-server"]), (run_sweep.app, ["toy-a", "distill.lr=1e-3", "--dry"])],
)
def test_a_checkout_that_cannot_be_written_is_one_line(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, app: object, arguments: list[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(toy.root / ".dvc" / "tmp"))

    monkeypatch.chdir(toy.root)
    monkeypatch.setattr("pipeline.graph.read", refuse)
    result = CliRunner().invoke(app, arguments)  # type: ignore[arg-type]
    assert result.exit_code == 2
    assert result.stderr.startswith("error: no permission (")
    assert len(result.stderr.splitlines()) == 1
