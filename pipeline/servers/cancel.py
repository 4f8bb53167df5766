"""Notices that somebody cancels a run that no runner of a server has started: a run of `dd-cli run`."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from pipeline.servers.mark_crashed import post

EVERY = 1.0  # seconds between two looks


@contextlib.contextmanager
def watched(api: str, run: str, stop: Callable[[], None]) -> Iterator[None]:
    """While the context lasts, `stop` is called (once, in a thread) when the run's state becomes Cancelling."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(EVERY):
            with contextlib.suppress(OSError, ValueError, IndexError, KeyError, TypeError):  # the server is away
                found = post(api, "flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}}, tries=1)
                if found[0]["state"]["type"] in ("CANCELLING", "CANCELLED"):
                    stop()
                    return

    thread = threading.Thread(target=look, name=f"state of {run}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
