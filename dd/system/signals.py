"""Signals as requests that a long loop looks at between two steps.

SIGTERM (a scheduler, a person, DVC's or Prefect's supervisor) asks to save and end, SIGUSR1 (Slurm's warning before a
time limit: `#SBATCH --signal=USR1@300`) to save and go on; Ctrl-C, where a loop wants it, the same as SIGTERM.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any


class Requests:
    """What signals ask for inside it, as a context manager; outside they do what they did before.

    A second SIGTERM ends the process at once. Threads other than the main one get no signals and see no requests.
    interrupt: Ctrl-C is such a request too; a second one is a KeyboardInterrupt.
    """

    def __init__(self, interrupt: bool = False) -> None:
        self.stop = self.save = False
        self._numbers = [signal.SIGTERM, signal.SIGUSR1, *([signal.SIGINT] if interrupt else [])]
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Requests:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in self._numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.save = True
        if number != signal.SIGUSR1:
            self.stop = True
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def brief_interrupts() -> None:
    """Ctrl-C during the imports of `python -m PACKAGE.MODULE` is one line too; call it in PACKAGE/__init__.py.

    Behind the imports `run_stage` answers. Does nothing where the package is only imported.
    """
    if sys.argv[:1] != ["-m"]:  # what runpy leaves there until it has found the module
        return
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write("stopped\n")
        else:
            usual(kind, error, trace)

    sys.excepthook = hook


@contextlib.contextmanager
def ignore_warnings() -> Iterator[None]:
    """Let SIGUSR1 pass, which would end the process: what loops do not ask for is kept shard by shard anyway.

    Programs that this one turns into or starts inherit it, `accelerate launch` among them.
    """
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
