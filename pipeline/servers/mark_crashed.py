"""Says in the Prefect server that a run was killed, when nobody else would.

A run that a server's runner started is marked by the runner; if that was killed as well, by `bury` when the server
starts again. For a run of `dd-cli run` this file is also a small program that waits for the end of the flow's process
(its standard input closes) and sets the state if no farewell came before:

    python epitaph.py API FLOW_RUN_ID
"""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FAREWELL = b"."
BUSY, TRIES, PAUSE = 503, 20, 0.5
MESSAGE = "The process of this run was killed. Its stages have ended; finished shards and checkpoints are kept."


@contextlib.contextmanager
def watched(api: str, run: str) -> Iterator[None]:
    """While the context lasts, a death of this process is told to the server."""
    command = [sys.executable, "-S", "-E", str(Path(__file__)), api, run]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    assert watcher.stdin is not None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            watcher.stdin.write(FAREWELL)
            watcher.stdin.close()
        watcher.wait(10)


def main(api: str, run: str) -> None:
    """Wait for the end of the other side of standard input."""
    if sys.stdin.buffer.read(1) != FAREWELL:
        mark(api, run)


def bury(api: str, deployment: str) -> None:
    """Mark every unfinished run of the deployments of this name; only for a caller who knows that their runner is gone.

    What waits for its time or its turn stays. A server that does not answer is left as it is.
    """
    states = ["RUNNING", "PENDING", "CANCELLING"]
    wanted = {"deployments": {"name": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": states}}}}
    with contextlib.suppress(OSError, ValueError):
        for run in post(api, "flow_runs/filter", wanted):
            mark(api, run["id"])


def mark(api: str, run: str) -> None:
    """Set the state of a run whose process was killed."""
    state = {"type": "CRASHED", "name": "Killed", "message": MESSAGE}
    with contextlib.suppress(OSError, ValueError):
        post(api, f"flow_runs/{run}/set_state", {"state": state, "force": True})


def post(api: str, path: str, body: Any) -> Any:
    """One call of the API with the standard library alone: Prefect's client takes two seconds to import.

    The server answers 503 while its database is locked; like Prefect's client, this comes back a little later.
    """
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{api.rstrip('/')}/{path}", json.dumps(body).encode(), headers, method="POST")
    for tries_left in range(TRIES - 1, -1, -1):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != BUSY or not tries_left:
                raise
            time.sleep(PAUSE)


if __name__ == "__main__":
    main(*sys.argv[1:])
