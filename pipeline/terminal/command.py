"""What the commands of a terminal share: a flow in this process, exit statuses, one-line errors."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer
from rich.console import Console

from dd.errors import DDError
from pipeline.servers import server

INTERRUPTED, FAILED, WRONG = 130, 1, 2  # exit statuses


def end(work: Callable[[Console], tuple[bool, str]]) -> NoReturn:
    """Do the work, which returns whether all went well and its last line, and leave with the status that says so.

    A DDError is one line and status 2; Ctrl-C and SIGTERM, which the work sees as KeyboardInterrupt, are status 130.
    """
    console = Console()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        ok, text = work(console)
    except DDError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(WRONG) from None
    except KeyboardInterrupt:
        console.print("stopped; finished shards and checkpoints are kept, the same command goes on from them")
        raise typer.Exit(INTERRUPTED) from None
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if ok else FAILED)


def flow(root: Path, api: str, name: str, **parameters: Any) -> tuple[bool, str]:
    """Run a flow of flows.py in this process, reported to the server at `api`: did it end well, its message."""
    os.environ.update(server.settings(root, api))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")  # the table shows the run; the server gets all lines
    from prefect.exceptions import TerminationSignal  # Prefect reads its settings when it is first imported

    from pipeline import flows

    try:
        state = getattr(flows, name)(**parameters, return_state=True)
    except TerminationSignal:
        raise KeyboardInterrupt from None
    if state.is_cancelled():
        raise KeyboardInterrupt
    return state.is_completed(), state.message or state.name or ""


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """A handler for signals that mean the same as Ctrl-C."""
    raise KeyboardInterrupt
