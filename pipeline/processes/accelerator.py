"""Places on the accelerator: at most `limit` stages of this machine use it at once, whichever runs they belong to.

A place is a lock file (flock) whose descriptor is handed to the supervisor of the stage, so the kernel holds it exactly
as long as one of the flow and the supervisor lives: no lease to renew, nothing to clean after SIGKILL, no server.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.processes import process

POLL = 0.2  # seconds


@contextlib.contextmanager
def place(folder: Path, limit: int, holder: str, say: Callable[[str], None]) -> Iterator[int]:
    """Wait for one of `limit` places and yield the descriptor that holds it.

    `say` gets one line if there is a wait. Raises process.StoppedError if the run is stopped meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = False
    while (held := _take(folder, limit)) is None:
        if not said:
            say(f"waiting for the accelerator ({holders(folder) or 'another stage'} has it)")
            said = True
        if process.stopping.wait(POLL):
            raise process.StoppedError(f"not started: {holder} waited for the accelerator")
    try:
        os.ftruncate(held, 0)
        os.pwrite(held, json.dumps({"stage": holder, "pid": os.getpid(), "since": round(time.time())}).encode(), 0)
        yield held
    finally:
        os.close(held)


def holders(folder: Path) -> str:
    """The stages that hold a place at this moment."""
    found = []
    for path in sorted(folder.glob("accelerator-*.lock")):
        with contextlib.suppress(OSError, ValueError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(str(json.loads(file.read())["stage"]))
    return ", ".join(found)


def _take(folder: Path, limit: int) -> int | None:
    for number in range(limit):
        held = os.open(folder / f"accelerator-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return held
        except BlockingIOError:
            os.close(held)
    return None
