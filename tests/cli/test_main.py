"""dd-cli as a whole: mistakes in one line, exit statuses, help."""

import logging
import os

import pytest

import dd
from tests.cli.conftest import run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sample", "toi"], "error: no experiment or student 'toi'; did you mean toy?"),
        (["sample", "toy", "--class", "boot"], "error: no class 'boot' in toy; there are hat, shoe, bag"),
        (["sample", "toy", "--n", "-3"], "error: --n: expected at least 1 image, got -3"),
        (["sample", "toy", "--noise-scale", "-1"], "error: --noise-scale: expected a number above 0, got -1"),
        (["sample", "toy", "--steps", "fast"], "error: --steps: expected a number, groups such as 0,16, or 'teacher'"),
        (["sample", "toy", "--out", "grid.jpg"], "error: --out: expected a name that ends in .png, got grid.jpg"),
        (["report"], "error: expected results/<experiment>/rows.json, found none"),
        (["zoo", "show", "tinny"], "error: no entry 'tinny' in the zoo; did you mean tiny?"),
        (["experiment", "add", "var-d17"], "error: no preset 'var-d17'; did you mean var-d"),
        (["smaple"], "error: no such command 'smaple'"),
        (["sample"], "error: missing argument 'experiment'; dd-cli sample -h shows what it takes"),
        (["sample", "toy", "--frob"], "error: no such option: --frob; dd-cli sample -h shows what it takes"),
        (["sample", "toy", "--seed", "x"], "error: invalid value for '--seed': "),
    ],
)
def test_mistakes_on_the_command_line(shipped_project, monkeypatch, capsys, arguments, expected):
    status, _, errors = run(monkeypatch, capsys, *arguments)
    assert status == 2
    assert errors.startswith(expected)
    assert errors.count("\n") == 1


def test_quiet_logs_no_progress(shipped_project, monkeypatch, capsys):
    monkeypatch.delenv("DD_QUIET", raising=False)
    monkeypatch.setattr("logging.basicConfig", lambda **settings: levels.append(settings["level"]))
    levels = []
    assert run(monkeypatch, capsys, "--quiet", "zoo", "list")[0] == 0
    assert run(monkeypatch, capsys, "zoo", "list")[0] == 0
    assert levels == [logging.WARNING, logging.INFO]
    assert os.environ.pop("DD_QUIET") == "1"


def test_a_command_without_its_command_shows_help(monkeypatch, capsys):
    status, said, errors = run(monkeypatch, capsys, "zoo")
    assert (status, errors) == (2, "")
    assert "Usage: dd-cli zoo" in said


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dd.checkpoints.zoo.entries", interrupted)
    status, _, errors = run(monkeypatch, capsys, "zoo", "list")
    assert (status, errors) == (130, "stopped\n")


def test_exit_statuses_are_part_of_the_help(monkeypatch, capsys):
    said = " ".join(run(monkeypatch, capsys, "-h")[1].split())
    for status in ("0 done", "1 something failed", "2 wrong input", "130 stopped", "141 the reader"):
        assert status in said


@pytest.mark.parametrize("command", [[], ["sample"], ["report"], ["zoo"], ["zoo", "list"], ["experiment"], ["doctor"]])
def test_every_help_reads(monkeypatch, capsys, command):
    status, said, _ = run(monkeypatch, capsys, *command, "--help")
    assert status == 0
    assert "Usage: dd-cli" in said


def test_version(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--version")[1] == f"dd {dd.__version__}\n"
