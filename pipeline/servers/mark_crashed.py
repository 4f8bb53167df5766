"""Says in the Prefect server that a run was killed, when nobody else would.

A run that a server's runner started is marked by the runner; if that was killed as well, by `mark_unfinished` when the
server starts again. For a run of `dd-cli run` this file is also a small program that waits for the end of the flow's
process (its standard input closes) and sets the state if the flow did not say before that it has ended:

    python mark_crashed.py API FLOW_RUN_ID
"""

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ENDED = b"."
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PROCESS = "process "
BUSY, TRIES, PAUSE = 503, 20, 0.5
MESSAGE = "The process of this run was killed. Its stages have ended; finished shards and checkpoints are kept."


@contextlib.contextmanager
def reported(api: str, run: str) -> Iterator[None]:
    """While the context lasts, a death of this process is told to the server."""
    command = [sys.executable, "-S", "-E", str(Path(__file__)), api, run]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    assert watcher.stdin is not None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            watcher.stdin.write(ENDED)
            watcher.stdin.close()
        watcher.wait(10)


def main(api: str, run: str) -> None:
    """Wait for the end of the other side of standard input."""
    if sys.stdin.buffer.read(1) != ENDED:
        mark(api, run)


def mark_unfinished(api: str, deployments: Sequence[str]) -> None:
    """Mark every unfinished run of these deployments; only for a caller who knows that their runner is gone.

    What waits for its time or its turn stays, and so does a run of a terminal whose process lives. A server that does
    not answer is left as it is.
    """
    states = ["RUNNING", "PENDING", "CANCELLING"]
    wanted = {"deployments": {"name": {"any_": list(deployments)}}, "flow_runs": {"state": {"type": {"any_": states}}}}
    with contextlib.suppress(OSError, ValueError):
        for run in post(api, "flow_runs/filter", wanted):
            if not any(_lives(tag) for tag in run["tags"]):
                mark(api, run["id"])


def process_tag(pid: int) -> str:
    """The tag of a run that a process of this machine has started by itself."""
    return f"{PROCESS}{pid} of {platform.node()}"


def _lives(tag: str) -> bool:
    if not tag.startswith(PROCESS) or not tag.endswith(f" of {platform.node()}"):
        return False
    try:
        os.kill(int(tag.removeprefix(PROCESS).split()[0]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def mark(api: str, run: str) -> None:
    """Set the state of a run whose process was killed."""
    state = {"type": "CRASHED", "name": "Killed", "message": MESSAGE}
    with contextlib.suppress(OSError, ValueError):
        post(api, f"flow_runs/{run}/set_state", {"state": state, "force": True})


def open_url(request: urllib.request.Request | str, timeout: float) -> Any:
    """`urlopen` that takes no proxy to this machine itself, whatever http_proxy says."""
    host = urllib.parse.urlsplit(request if isinstance(request, str) else request.full_url).hostname
    handlers = [urllib.request.ProxyHandler({})] if host in LOOPBACK else []
    return urllib.request.build_opener(*handlers).open(request, timeout=timeout)


def post(api: str, path: str, body: Any, tries: int = TRIES) -> Any:
    """One call of the API with the standard library alone: Prefect's client takes two seconds to import.

    The server answers 503 while its database is locked; like Prefect's client, this comes back a little later.
    """
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{api.rstrip('/')}/{path}", json.dumps(body).encode(), headers, method="POST")
    for tries_left in range(tries - 1, -1, -1):
        try:
            with open_url(request, 60.0) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != BUSY or not tries_left:
                raise
            time.sleep(PAUSE)


if __name__ == "__main__":
    main(*sys.argv[1:])
