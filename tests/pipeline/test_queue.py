"""DVC's own queue: two experiments at once, each in a copy of the tree."""

import json

import pytest

from tests.pipeline.conftest import Toy, until


@pytest.mark.slow
def test_two_queued_experiments_run_at_once_and_leave_the_tree_alone(toy: Toy) -> None:
    params = (toy.root / "params.yaml").read_bytes()
    for value in ("0.5", "0.25"):
        change = ("--set-param", f"experiments.toy-a.distill.lr={value}")
        toy.dvc("exp", "run", "--queue", "-q", *change, "evaluate@toy-a")
    toy.dvc("queue", "start", "-q", "-j", "2")

    def finished() -> bool:
        states = toy.dvc("queue", "status").split()
        assert "Failed" not in states
        return states.count("Success") == 2

    until(finished, what="both experiments to succeed")
    shown = json.loads(toy.dvc("exp", "show", "--json", "--num", "1"))
    rows = [run for commit in shown for run in commit.get("experiments") or ()]
    rates = sorted(
        run["revs"][0]["data"]["params"]["params.yaml"]["data"]["experiments"]["toy-a"]["distill"]["lr"] for run in rows
    )
    assert rates == [0.25, 0.5]
    assert (toy.root / "params.yaml").read_bytes() == params
    assert toy.command("git", "status", "--porcelain", "--untracked-files=no") == ""
    until(lambda: not toy.survivors(), what="the workers to end")
