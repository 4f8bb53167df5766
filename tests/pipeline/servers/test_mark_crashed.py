"""Runs whose process was killed."""

from pipeline.servers import mark_crashed
from tests.pipeline.conftest import post


def _state(api: str, run: str) -> str:
    return str(post(api, "flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})[0]["state"]["type"])


def test_runs_whose_runner_was_killed_are_marked(api: str) -> None:
    flow = post(api, "flows/", {"name": "killed"})["id"]
    made = {}
    for name in ("run-sweep", "elsewhere"):
        deployment = post(api, "deployments/", {"name": name, "flow_id": flow})["id"]
        for kind in ("RUNNING", "SCHEDULED"):
            run = post(api, f"deployments/{deployment}/create_flow_run", {})["id"]
            post(api, f"flow_runs/{run}/set_state", {"state": {"type": kind}, "force": True})
            made[name, kind] = run
    mark_crashed.mark_unfinished(api, ["run-sweep"])
    assert {key: _state(api, run) for key, run in made.items()} == {
        ("run-sweep", "RUNNING"): "CRASHED",
        ("run-sweep", "SCHEDULED"): "SCHEDULED",
        ("elsewhere", "RUNNING"): "RUNNING",
        ("elsewhere", "SCHEDULED"): "SCHEDULED",
    }
    mark_crashed.mark_unfinished("http://127.0.0.1:9/api", ["run-sweep"])  # nobody there: nothing to say
