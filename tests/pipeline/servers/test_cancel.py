"""Runs of a terminal beside `dd-cli ui`: cancelled from the browser, with logs."""

from typing import Any

import pytest

from tests.pipeline.conftest import Prefect, Toy, busy, post, until


def run_of(api: str, seed: int) -> dict[str, Any] | None:
    override = f"toy-a.trajectories.seed={seed}"
    runs = post(api, "flow_runs/filter", {"sort": "START_TIME_DESC"})
    return next((run for run in runs if override in run["parameters"].get("overrides", ())), None)


@pytest.mark.slow
def test_a_run_of_the_terminal_is_cancelled_from_the_browser(toy: Toy, deployed: Prefect) -> None:
    toy.control(trajectories_toy_a={"pause": 30})
    child = toy.start("toy-a", "-S", "toy-a.trajectories.seed=21", api=deployed.api)
    until(toy.alive, what="a stage")
    run = run_of(deployed.api, 21)
    assert run is not None
    assert run["deployment_id"] is not None  # without it the browser's button is grey
    names = [
        task["name"] for task in post(deployed.api, "task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    ]
    assert any(name.startswith("evaluate@toy-a") for name in names), names  # it waits, and its name says for what
    post(deployed.api, f"flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
    until(lambda: not toy.alive(), 3.0 + 2.0 * busy(), "the stage to end")
    output = child.communicate(timeout=300)[0]
    assert child.returncode == 130, output
    assert (run_of(deployed.api, 21) or {})["state"]["type"] == "CANCELLED"
    said = until(lambda: _logs(deployed.api, run["id"]), 60, "logs")
    assert "params.yaml: experiments.toy-a.trajectories.seed=21 (was 0)" in said
    assert "INFO" not in output  # the table shows the run, not Prefect's lines


def _logs(api: str, run: str) -> list[str]:
    return [log["message"] for log in post(api, "logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})]
