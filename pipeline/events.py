"""What happens in a run, told to whoever listens in this process (the terminal's live table).

The listeners are kept in a module of their own, so that a flow (which Prefect pickles) holds none of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

Moment = Literal["planned", "started", "waiting", "progress", "line", "finished"]


@dataclass(frozen=True)
class Event:
    """`text` is a line of output or the outcome's message; `kind` the outcome; `progress` see dd/system/progress.py."""

    stage: str
    moment: Moment
    text: str = ""
    kind: str = ""
    progress: dict[str, Any] | None = None


_listeners: list[Callable[[Event], None]] = []


def tell(event: Event) -> None:
    """Hand an event to the listeners, from any thread."""
    for listener in tuple(_listeners):
        listener(event)


@contextmanager
def listening(listener: Callable[[Event], None]) -> Iterator[None]:
    """Be told while the context lasts."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
