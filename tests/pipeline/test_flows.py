"""The flow against a real Prefect server: names of states, artifacts, cancelling, a server that goes away."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import graph
from pipeline.servers import server
from tests.pipeline.conftest import Prefect, Toy, busy, post, until


def tasks(api: str, run: str) -> dict[str, str]:
    """Names of the tasks' states."""
    found = post(api, "task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    return {task["name"]: task["state"]["name"] for task in found}


def artifacts(api: str, run: str) -> dict[str, dict[str, Any]]:
    found = post(api, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    return {artifact["key"]: artifact for artifact in found}


def newest(api: str, seed: int) -> dict[str, Any] | None:
    """The last run with this override, which no two tests share."""
    override = f"toy-a.trajectories.seed={seed}"
    return next(
        (
            run
            for run in post(api, "flow_runs/filter", {"sort": "START_TIME_DESC"})
            if override in run["parameters"]["overrides"]
        ),
        None,
    )


def test_states_artifacts_and_an_identical_run(toy: Toy, api: str) -> None:
    toy.control(trajectories_toy_a={"pause": 0.8})
    output = toy.run("-S", "toy-a.trajectories.seed=1", api=api)
    assert "7 stages: 2 ran, 5 unchanged" in output
    run = newest(api, 1)
    assert run is not None
    assert run["state"]["name"] == "Ran"
    assert run["name"].startswith("all at ")
    wanted = {"trajectories@toy-a": "Ran", "distill@toy-a": "Ran", "report": "Unchanged"}
    until(lambda: wanted.items() <= tasks(api, run["id"]).items(), 300, "the states of the tasks")
    shown = artifacts(api, run["id"])
    assert {"results", "provenance", "report", "toy-a-samples", "toy-a-curve", "report-quality"} <= set(shown)
    assert shown["progress-trajectories-toy-a"]["data"] == 100.0
    assert shown["toy-a-samples"]["data"].startswith("![toy-a-samples](data:image/png;base64,")
    rows = json.loads(shown["results"]["data"])
    assert [row["experiment"] for row in rows] == ["toy-a", "toy-b"]
    assert "override" in shown["provenance"]["data"]
    start = time.monotonic()
    assert "7 stages: 7 unchanged" in toy.run(api=api)
    assert time.monotonic() - start < 15 * busy()


def test_a_failed_stage_is_said_in_the_states(toy: Toy, api: str) -> None:
    toy.control(trajectories_toy_a={"exit": 3})
    output = toy.run("toy-a", "-S", "toy-a.trajectories.seed=2", api=api, status=1)
    assert "Traceback" not in output
    run = newest(api, 2)
    assert run is not None
    assert run["state"]["type"] == "FAILED"
    assert "trajectories@toy-a failed: expected a fine day, found rain: wait (exited with 3)" in run["state"]["message"]
    until(lambda: tasks(api, run["id"]).get("distill@toy-a") == "NotReady", 300, "the skipped task")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_flow_and_stages(toy: Toy, api: str, number: signal.Signals) -> None:
    toy.control(trajectories_toy_a={"pause": 1.2, "deaf": True, "away": True})
    seed = 10 + number
    child = toy.start("toy-a", "-S", f"toy-a.trajectories.seed={seed}", api=api)
    until(lambda: toy.log() and len(toy.alive()) >= 2, what="a shard")
    start = time.monotonic()
    child.send_signal(number)
    until(lambda: not toy.alive(), 300, "the stages to end")
    assert time.monotonic() - start < 3.0 + 0.5 * busy()
    output = child.communicate(timeout=300)[0]
    assert not (toy.root / "data" / "toy-a" / "trajectories").exists()
    assert child.returncode == (130 if number != signal.SIGKILL else -signal.SIGKILL), output
    named = {signal.SIGTERM: "Crashed", signal.SIGKILL: "Killed"}[number]
    until(lambda: (newest(api, seed) or {})["state"]["name"] == named, 300, f"the state {named}")
    toy.control()
    done = toy.log()
    toy.dvc("repro", "trajectories@toy-a")
    assert len(toy.log()) == 4
    assert toy.log()[: len(done)] == done


def test_a_server_that_goes_away_does_not_end_the_run(toy: Toy, prefect: Prefect) -> None:
    api = prefect.api
    toy.control(trajectories_toy_a={"pause": 1.0})
    flow = toy.start("toy-a", "-S", "toy-a.trajectories.seed=4", api=api)
    until(lambda: toy.log(), what="a shard")
    prefect.stop()
    try:
        assert not server.healthy(api)
        until(lambda: "distill@toy-a 3" in toy.log(), what="the stages to go on without the server")
    finally:
        prefect.start()
    output = flow.communicate(timeout=300)[0]
    assert flow.returncode == 0, output
    run = newest(api, 4)
    assert run is not None
    assert run["state"]["name"] == "Ran"
    until(lambda: tasks(api, run["id"]).get("distill@toy-a") == "Ran", what="the task's state")


def test_the_offer_of_the_ui(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy.root)
    from pipeline.flows import choices

    assert choices(toy.root)[:3] == ["toy-a", "toy-b", "trajectories"]
    assert set(graph.names(graph.read(toy.root))) == set(choices(toy.root))
    assert json.dumps(choices(Path("/nonexistent"))) == "[]"
