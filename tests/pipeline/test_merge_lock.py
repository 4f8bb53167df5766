"""Two branches' dvc.lock become one: by hand, and as git's merge driver."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dd.errors import DDError
from pipeline import graph, merge_lock
from tests.pipeline.conftest import Toy


def test_each_stage_from_the_side_that_changed_it() -> None:
    base = {"schema": "2.0", "stages": {"same": 1, "ours": 1, "theirs": 1, "both": 1, "gone": 1, "alike": 1}}
    ours = {"schema": "2.0", "stages": {"same": 1, "ours": 2, "theirs": 1, "both": 2, "alike": 2, "new": 5}}
    theirs = {"schema": "2.0", "stages": {"same": 1, "ours": 1, "theirs": 2, "both": 3, "gone": 1, "alike": 2}}
    merged, left_out = merge_lock.merge(base, ours, theirs)
    assert merged["stages"] == {"same": 1, "ours": 2, "theirs": 2, "alike": 2, "new": 5}
    assert left_out == ["both"]


def test_two_branches_are_merged_and_nothing_runs_that_ran(toy: Toy) -> None:
    """Each branch has changed one experiment; git asks the driver that docs/team.md sets."""
    (toy.root / ".gitattributes").write_text("dvc.lock merge=dvc-lock\n")
    toy.command("git", "config", "merge.dvc-lock.driver", f"{sys.executable} -m pipeline.merge_lock %O %A %B")
    toy.command("git", "add", "-A")
    toy.command("git", "commit", "-qm", "attributes")
    for branch, experiment, seed in (("other", "toy-b", 5), ("main", "toy-a", 6)):
        toy.command("git", "checkout", "-q", *(["-b"] if branch == "other" else []), branch)
        toy.dvc("checkout", "-q")
        toy.run("-S", f"{experiment}.trajectories.seed={seed}")
        toy.command("git", "commit", "-qam", branch)
    done = len(toy.log())
    toy.command("git", "merge", "-q", "--no-edit", "other")
    toy.dvc("checkout", "-q")
    output = toy.run()
    assert "failed" not in output
    assert len(toy.log()) <= done + 1  # only the report, which both sides had made, may be made again
    for stage in ("trajectories@toy-a", "trajectories@toy-b", "distill@toy-a", "distill@toy-b"):
        assert f"{stage}: ran" not in output


def test_a_conflict_that_git_left_is_resolved(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = toy.root / "dvc.lock"
    monkeypatch.chdir(toy.root)
    for branch, value in (("main", 1), ("other", 2), ("main", 3)):
        if branch == "other":
            toy.command("git", "checkout", "-qb", branch)
        else:
            toy.command("git", "checkout", "-q", branch)
        lock.write_text(f"schema: '2.0'\nstages:\n  a: {value}\n  b: {value if branch == 'other' else 1}\n")
        toy.command("git", "commit", "-qam", branch)
    assert subprocess.run(["git", "merge", "other"], cwd=toy.root, env=toy.env, capture_output=True).returncode
    with pytest.raises(DDError, match=r"found a merge conflict in line .: run `python -m pipeline.merge_lock`"):
        graph.read(toy.root)
    said = "merged dvc.lock: 1 stages; changed on both sides, so restored or computed next: a"
    assert merge_lock.main([]) == said
    assert yaml.safe_load(lock.read_text()) == {"schema": "2.0", "stages": {"b": 2}}


def test_what_is_no_lock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("base", "ours", "theirs")]
    for file in files:
        file.write_text("stages: {}\n")
    files[2].write_text("a: [")
    with pytest.raises(DDError, match=r"expected a dvc\.lock in .*theirs, found no YAML"):
        merge_lock.main([str(file) for file in files])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DDError, match=r"run this where git left dvc\.lock in conflict"):
        merge_lock.main([])
