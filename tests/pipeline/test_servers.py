"""Runs of a terminal beside `dd-cli ui`: cancelled from the browser, with logs; many clients at once; proxies."""

import http.server
import json
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dd.errors import DDError
from pipeline.servers import server
from tests.pipeline.conftest import Prefect, Toy, busy, post, until


@pytest.fixture
def deployed(prefect: Prefect) -> Prefect:
    """The session's server with a deployment as `dd-cli ui` makes it; nobody serves it."""
    flow = post(prefect.api, "flows/", {"name": "experiments"})["id"]
    post(prefect.api, "deployments/", {"name": server.DEPLOYMENTS["experiments"], "flow_id": flow})
    return prefect


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


@pytest.mark.slow
def test_twenty_runs_made_at_once_are_all_accepted(deployed: Prefect) -> None:
    found = post(deployed.api, "deployments/filter", {})
    name = server.DEPLOYMENTS["experiments"]
    deployment = next(one["id"] for one in found if one["name"] == name)
    address = f"{deployed.api}/deployments/{deployment}/create_flow_run"

    def make(number: int) -> int:
        body = json.dumps({"parameters": {"targets": [f"at-once-{number}"]}, "state": {"type": "PENDING"}}).encode()
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
        with urllib.request.urlopen(request, timeout=120) as answer:  # a 503 raises: no second try here
            return int(answer.status)

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(make, range(20))) == [201] * 20


class Version(http.server.BaseHTTPRequestHandler):
    """A server that says its version and is healthy."""

    version = "3.0.0"

    def do_GET(self) -> None:
        body = json.dumps(self.version).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def old() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Version) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/api"
        httpd.shutdown()


def test_an_older_server_is_told_of_and_another_major_refused(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.check_version(old, "3.0.0") is None
    assert f"the Prefect server at {old} is older (3.0.0) than this client (3.8.8)" in str(
        server.check_version(old, "3.8.8")
    )
    monkeypatch.setattr(Version, "version", "2.20.1")
    with pytest.raises(
        DDError, match=r"expected a Prefect 3 server at .*, found 2\.20\.1: update it, or add --no-server"
    ):
        server.check_version(old, "3.8.8")


def test_loopback_takes_no_proxy(old: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    assert server.healthy(old)
    settings = server.settings(tmp_path)
    assert settings["no_proxy"] == settings["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1"


def test_a_server_that_does_not_come_up_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(server, "START_PATIENCE", 0.0)
    monkeypatch.setattr(server, "START_LIMIT", 1.0)
    monkeypatch.setattr(server, "healthy", lambda *_: False)
    with pytest.raises(DDError, match=r"expected a Prefect server at .*, it did not start: its log is .*server\.log"):
        server.start(tmp_path, server.free_port(0), say=said.append)
    assert len(said) == 1
    assert "has not answered for" in said[0]
    assert "its log is" in said[0]
