"""Many clients at once."""

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.servers import server
from tests.pipeline.conftest import Prefect, post


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
