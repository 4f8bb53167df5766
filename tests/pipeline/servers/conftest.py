"""A server with a deployment."""

import pytest

from pipeline.servers import server
from tests.pipeline.conftest import Prefect, post


@pytest.fixture
def deployed(prefect: Prefect) -> Prefect:
    """The session's server with a deployment as `dd-cli ui` makes it; nobody serves it."""
    flow = post(prefect.api, "flows/", {"name": "experiments"})["id"]
    post(prefect.api, "deployments/", {"name": server.DEPLOYMENTS["experiments"], "flow_id": flow})
    return prefect
