"""Sweeps: points are checked first, run as DVC experiments in copies, and end in one table."""

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from dd.errors import DDError
from pipeline import sweep
from tests.pipeline.conftest import Toy, busy, post, until

FLOW = "import sys, json; from pipeline import flows; flows.sweep(**json.loads(sys.argv[1]), return_state=True)"


def start(toy: Toy, api: str, **parameters: Any) -> "subprocess.Popen[str]":
    env = {**toy.env, "PREFECT_API_URL": api}
    command = [sys.executable, "-c", FLOW, json.dumps(parameters)]
    return subprocess.Popen(command, cwd=toy.root, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_points(toy: Toy) -> None:
    ready = sweep.check_sweep(toy.root, "toy-a", {"distill.lr": [1e-3, 0.5], "distill.steps": [4, 6]}, 2)
    assert [point.name for point in ready.points] == [
        "toy-a-lr-0.001-steps-4",
        "toy-a-lr-0.001-steps-6",
        "toy-a-lr-0.5-steps-4",
        "toy-a-lr-0.5-steps-6",
    ]
    words = " ".join(sweep.command(ready, ready.points[3]))
    assert words.endswith(
        "--name toy-a-lr-0.5-steps-6 -S ++experiments.toy-a.distill.lr=0.5 -S ++experiments.toy-a.distill.steps=6 "
        "evaluate@toy-a"
    )


def test_a_grid_in_words() -> None:
    assert sweep.parse(["distill.lr=1e-3,0.5", "distill.timesteps=[0,16],[0]"]) == {
        "distill.lr": ["1e-3", 0.5],
        "distill.timesteps": [[0, 16], [0]],
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distill.lr"], "expected a parameter and its values such as distill.lr=1e-3,3e-4, found 'distill.lr'"),
        (["distill.lr="], "expected a parameter and its values such as distill.lr=1e-3,3e-4, found 'distill.lr='"),
        (["distill.lr=1", "distill.lr=2"], "found 'distill.lr' twice: write all its values in one place"),
        (["distill.timesteps=[0,16"], "expected values with commas between them, found '[0,16': close its brackets"),
    ],
)
def test_wrong_words(words: list[str], message: str) -> None:
    with pytest.raises(DDError) as caught:
        sweep.parse(words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("experiment", "grid", "message"),
    [
        ("toy-c", {"distill.lr": [1]}, "found 'toy-c': did you mean toy-b or toy-a?"),
        ("toy-a", {}, "expected a grid of 1 to 256 points, found 0: name a parameter"),
        ("toy-a", {"distill.lr": 3}, "expected a list of values for 'distill.lr', found 3"),
        ("toy-a", {"distill.lr": list(range(1, 400))}, "found 399: give it fewer values"),
        ("toy-a", {"distill.lrr": [1]}, "unknown parameter, did you mean lr?"),
        ("toy-a", {"distill.lr": [1, 1]}, "found two of the same name"),
        ("toy-a", {"distill.lr": [0.5, "5e-1"]}, "found two of the same name"),
        ("toy-a", {"toy-b.distill.lr": [1]}, "expected parameters of toy-a, found 'experiments.toy-b.distill.lr'"),
    ],
)
def test_wrong_sweeps(toy: Toy, experiment: str, grid: dict[str, Any], message: str) -> None:
    with pytest.raises(DDError) as caught:
        sweep.check_sweep(toy.root, experiment, grid, 1)
    assert message in str(caught.value)


def test_projects_without_a_sweep(toy: Toy) -> None:
    with pytest.raises(DDError, match="expected at least one point at a time, found jobs=0: use 1"):
        sweep.check_sweep(toy.root, "toy-a", {"distill.lr": [1]}, 0)
    text = (toy.root / "dvc.yaml").read_text()
    (toy.root / "dvc.yaml").write_text(text.replace("  evaluate:", "  measure:"))
    with pytest.raises(DDError, match=r"expected a stage 'evaluate@toy-a' to end each point with, found none in dvc"):
        sweep.check_sweep(toy.root, "toy-a", {"distill.lr": [1]}, 1)
    (toy.root / ".git" / "refs" / "heads" / "main").unlink()
    with pytest.raises(DDError, match="expected a commit for the experiments to start from, found none: commit the"):
        sweep.check_sweep(toy.root, "toy-a", {"distill.lr": [1]}, 1)


def test_a_sweep_ends_in_one_table_and_leaves_the_tree_alone(toy: Toy, api: str) -> None:
    child = start(toy, api, experiment="toy-a", grid={"distill.lr": [0.25, 0.5]}, jobs=2)
    output = child.communicate(timeout=300)[0]
    assert child.returncode == 0, output
    found = post(api, "artifacts/filter", {"artifacts": {"key": {"any_": ["sweep-toy-a"]}}})
    rows = {row["experiment"]: row for row in json.loads(found[-1]["data"])}
    assert rows["toy-a-lr-0.25"] == {"experiment": "toy-a-lr-0.25", "distill.lr": 0.25, "dd": 250.0}
    assert rows["toy-a-lr-0.5"]["dd"] == 500.0
    assert "toy-a-lr-0.5" in toy.dvc("exp", "list", "--name-only")
    assert toy.command("git", "status", "--porcelain") == ""
    assert not sweep.folders(toy.root)


def test_a_stopped_sweep_leaves_nothing(toy: Toy, api: str) -> None:
    text = (toy.root / "toy.py").read_text()
    (toy.root / "toy.py").write_text(
        text.replace('if stage == "trajectories":\n    units', "time.sleep(30)\nif False:\n    units")
    )
    child = start(toy, api, experiment="toy-a", grid={"distill.lr": [0.25, 0.5]}, jobs=1)
    until(lambda: sweep.folders(toy.root) and any("toy.py" in line for line in _commands()), 300, "a point")
    begin = time.monotonic()
    child.terminate()
    until(lambda: not any("toy.py" in line for line in _commands()), 30, "the stage to end")
    assert time.monotonic() - begin < 3.0 + 0.5 * busy()
    child.communicate(timeout=300)
    assert not sweep.folders(toy.root)


def _commands() -> list[str]:
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if line.startswith("python toy.py")]
