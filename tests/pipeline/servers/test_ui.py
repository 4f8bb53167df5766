"""`make ui` as a person meets it: one server per project, flows in it, the run's page in a real browser."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dd.errors import DDError
from pipeline.servers import server, ui
from tests.helpers.browser import CHROMIUM, QUIET
from tests.pipeline.conftest import Toy, busy, post, until

FLAGS = (*QUIET, "--virtual-time-budget=15000", "--window-size=1500,1250")


@pytest.fixture
def served(toy: Toy) -> Iterator[server.Server]:
    """The server of `make ui`, on a free port because 4200 may be taken."""
    child = toy.start("--port", str(server.free_port(0)), module="pipeline.servers.ui")
    try:
        yield until(lambda: _deployed(server.recorded(toy.root)), 600, "the server and its flows")
    finally:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    assert server.recorded(toy.root) is None


def _deployed(own: server.Server | None) -> server.Server | None:
    return own if own and len(deployments(own.api)) == 2 else None


def deployments(api: str) -> dict[str, dict[str, Any]]:
    """Ready deployments by the name of their flow."""
    flows = {flow["id"]: flow["name"] for flow in post(api, "flows/filter", {})}
    return {flows[d["flow_id"]]: d for d in post(api, "deployments/filter", {}) if d["status"] == "READY"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_ui_from_start_to_cancel(toy: Toy, served: server.Server, tmp_path: Path) -> None:
    assert served.api.startswith("http://127.0.0.1:")
    assert (
        "expected no server of this project, found one at"
        in toy.start(module="pipeline.servers.ui").communicate(timeout=300)[0]
    )
    found = deployments(served.api)
    form = found["experiments"]["parameter_openapi_schema"]["properties"]
    assert form["targets"]["items"]["enum"][:2] == ["toy-a", "toy-b"]
    assert form["overrides"]["description"].startswith("distill.lr=1e-4 for all chosen experiments")
    run = _start(served.api, found["experiments"]["id"], {})
    shown = {a["key"]: a for a in post(served.api, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})}
    assert f"{served.files}/report.html" in shown["report"]["data"]
    if CHROMIUM:
        page = _page(f"{served.ui}/runs/flow-run/{run}", tmp_path / "home")
        for text in ("Unchanged", "experiments", "7 Task runs"):
            assert text in page
    _cancel(toy, served, found["experiments"]["id"])


def _start(api: str, deployment: str, parameters: dict[str, Any]) -> str:
    """Start a run from the UI's side and wait for its end."""
    run = str(post(api, f"deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"])
    state = until(lambda: _state(api, run) in ("COMPLETED", "FAILED", "CRASHED") and _state(api, run), 300, "the run")
    assert state == "COMPLETED"
    return run


def _cancel(toy: Toy, served: server.Server, deployment: str) -> None:
    """Cancel a run in mid-shard: its stage ends, the run is Cancelled, nothing is half published."""
    toy.control(trajectories_toy_a={"pause": 1.5})
    parameters = {"targets": ["toy-a"], "overrides": ["toy-a.trajectories.seed=7"]}
    run = post(served.api, f"deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"]
    until(lambda: toy.log() and toy.alive(), 300, "a shard")
    post(served.api, f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    until(lambda: not toy.alive(), 30, "the stage to end")
    until(lambda: _state(served.api, run) == "CANCELLED", 30, "the state of the run")
    assert not (toy.root / "data" / "toy-a" / "trajectories").exists()


def _state(api: str, run: str) -> str:
    return str(post(api, "flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})[0]["state"]["type"])


def _page(url: str, home: Path) -> str:
    """What a page says after its scripts have run."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={home}", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sigkill_of_the_ui_leaves_nothing(toy: Toy) -> None:
    toy.control(trajectories_toy_a={"pause": 60, "deaf": True, "away": True})
    child = toy.start("--port", str(server.free_port(0)), module="pipeline.servers.ui")
    own = until(lambda: _deployed(server.recorded(toy.root)), 600, "the server and its flows")
    parameters = {"targets": ["toy-a"], "force": True}
    post(
        own.api, f"deployments/{deployments(own.api)['experiments']['id']}/create_flow_run", {"parameters": parameters}
    )
    until(lambda: len(toy.alive()) == 2, 300, "a stage")
    commands = " ".join(toy.survivors().values())
    assert all(text in commands for text in ("server start", "http.server", "pipeline.servers.serve", "dvc", "toy.py"))
    start = time.monotonic()
    child.kill()
    until(lambda: not toy.survivors() and not toy.alive(), 60, "all to end")
    assert time.monotonic() - start < 3.0 + 0.5 * busy()
    toy.control()
    toy.dvc("repro", "trajectories@toy-a")  # no lock is left


def test_the_ui_ends_with_what_it_watches(tmp_path: Path) -> None:
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ui.watch({"server": living}, tmp_path, parent=0)  # another parent by now: make was killed
    living.communicate()
    with pytest.raises(DDError, match=r"expected the server to go on, it ended: its log is .*server\.log$"):
        ui.watch({"server": living}, tmp_path, parent=None)
