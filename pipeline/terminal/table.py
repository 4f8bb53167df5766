"""The live table of a run in a terminal; plain lines where there is none."""

import os
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from pipeline.events import Event
from pipeline.terminal.wording import describe

STYLES = {"ran": "green", "restored": "cyan", "unchanged": "dim", "failed": "bold red", "skipped": "yellow"}


@dataclass
class _Row:
    state: str = "planned"
    text: str = ""
    since: float = 0.0
    seconds: float | None = None


class StageTable:
    """A listener of events.py that shows one row per stage; `verbose` also prints every line of output.

    Where there is no terminal, or `CI` is set, each stage is a line when it ends; `quiet`: nothing.
    """

    def __init__(self, console: Console, verbose: bool = False, quiet: bool = False) -> None:
        self.console, self.verbose, self.quiet = console, verbose, quiet
        self.rows: dict[str, _Row] = {}
        self.lock = threading.Lock()
        lively = console.is_terminal and not console.is_dumb_terminal and not os.environ.get("CI") and not quiet
        self.live = Live(console=console, get_renderable=self.table, refresh_per_second=4) if lively else None

    def __enter__(self) -> "StageTable":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, event: Event) -> None:
        with self.lock:
            row = self.rows.setdefault(event.stage, _Row())
            if event.moment == "started":
                row.state, row.since = "running", time.monotonic()
            elif event.moment == "progress":
                row.text = describe(event.progress or {})
            elif event.moment == "line":
                self._line(event, row)
            elif event.moment == "finished":
                row.state, row.text = event.kind, event.text
                row.seconds = time.monotonic() - row.since if row.since else None
                if not self.live and not self.quiet:
                    self.console.print(f"{event.stage}: {event.text}", markup=False, highlight=False, soft_wrap=True)

    def table(self) -> Table:
        """The rows as they are at this moment."""
        table = Table("stage", "state", "time", "what it does", box=None, pad_edge=False)
        with self.lock:
            for name, row in self.rows.items():
                seconds = row.seconds
                if row.state == "running":
                    seconds = time.monotonic() - row.since
                clock = "" if seconds is None else f"{seconds:.1f} s"
                style = STYLES.get(row.state, "")
                table.add_row(name, f"[{style}]{row.state}[/]" if style else row.state, clock, escape(row.text[:200]))
        return table

    def _line(self, event: Event, row: _Row) -> None:
        if event.text.startswith("waiting for the accelerator"):
            row.text = event.text
        if self.verbose:
            self.console.print(f"{event.stage} | {event.text}", markup=False, highlight=False, soft_wrap=True)
