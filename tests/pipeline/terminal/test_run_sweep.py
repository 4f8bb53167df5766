"""dd-cli sweep: runs, refusals, one table."""

from pipeline import sweep
from tests.pipeline.conftest import Toy


def test_the_command_lists_runs_and_refuses(toy: Toy) -> None:
    grid = ("toy-a", "distill.lr=0.25,5e-1", "distill.steps=4")
    output = toy.sweep(*grid, "--dry")
    assert "toy-a-lr-0.25-steps-4" in output
    assert "2 points; nothing has run" in output
    output = toy.sweep("toy-a", "distill.lr=0.25", "distill.stepps=4", status=2)
    assert output.startswith("error: ")
    assert "unknown parameter, did you mean steps?" in output
    assert not toy.log()
    output = toy.sweep(*grid, "--verbose")
    assert "Running stage 'distill@toy-a'" in output
    assert "Running stage 'trajectories@toy-a'" not in output  # a point does not change it
    assert "toy-a-lr-0.5-steps-4: distill.lr=0.5, distill.steps=4 in" in output
    head, *rows = [line.split() for line in output.splitlines() if line.startswith(("experiment ", "toy-a-lr"))][-3:]
    assert head == ["experiment", "distill.lr", "distill.steps", "dd"]
    assert rows == [["toy-a-lr-0.25-steps-4", "0.25", "4", "250"], ["toy-a-lr-0.5-steps-4", "0.5", "4", "500"]]
    assert "2 points: 2 ran" in output
    assert "2 points: 2 restored" in toy.sweep(*grid)  # the experiments of these names are replaced
    shown = toy.dvc("exp", "show", "--csv")
    assert "toy-a-lr-0.25-steps-4" in shown
    assert "toy-a-lr-0.5-steps-4" in shown
    assert toy.command("git", "status", "--porcelain") == ""
    assert not sweep.folders(toy.root)
