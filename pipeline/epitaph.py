"""Says in the Prefect server that a run was killed, when nobody else would: a flow that was started by hand.

A run that a server's runner started is marked by the runner. For one of `dd-cli run` this file is also a small program
that waits for the end of the flow's process (its standard input closes) and sets the state if no farewell came before:

    python epitaph.py API FLOW_RUN_ID
"""

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

FAREWELL = b"."
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
    if sys.stdin.buffer.read(1) == FAREWELL:
        return
    body = json.dumps({"state": {"type": "CRASHED", "name": "Killed", "message": MESSAGE}, "force": True}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{api.rstrip('/')}/flow_runs/{run}/set_state", body, headers, method="POST")
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=60):
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
