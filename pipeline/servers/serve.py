"""Offers the flows in a server and runs what is started there: python -m pipeline.servers.serve LIMIT (see ui.py).

PREFECT_API_URL says which server; LIMIT how many runs there may be at once.
"""

import sys
from typing import cast

from prefect import serve
from prefect.deployments.runner import RunnerDeployment

from pipeline import flows
from pipeline.servers.server import DEPLOYMENTS


def main(limit: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    deployments = [
        flows.experiments.to_deployment(
            DEPLOYMENTS["experiments"], description="Bring experiments up to date in this working tree."
        ),
        flows.sweep.to_deployment(
            DEPLOYMENTS["sweep"], description="A grid over one experiment's parameters, in copies of the tree."
        ),
    ]
    serve(*cast(list[RunnerDeployment], deployments), print_starting_message=False, limit=int(limit), query_seconds=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
