"""Progress of a long loop: a bar for a person, a log line for a log, a small file for the flow that watches.

    for shard in progress(shards, unit="shards", label="trajectories"): ...

    with progress(total_steps, unit="steps", label="distill", done=resumed_at) as bar:
        bar.update(1)

On a terminal this is a tqdm bar. Elsewhere (a pipe, a file, or the environment variable `CI` is set) it is one log line
every 30 seconds, with the time that is left at the rate so far. With `DD_QUIET` (`dd-cli --quiet`) there is no bar.

If `DD_PROGRESS_FILE` names a file, it holds one line of JSON, replaced as a whole so that a reader
never sees half of it: `{"step": 12, "total": 40, "unit": "shards", "rate": 0.8, "label": "trajectories"}`; `rate` is in
units per second over this process's own work, or null before the first unit.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from tqdm import tqdm

T = TypeVar("T")
logger = logging.getLogger(__name__)

LOG_EVERY = 30.0  # seconds between log lines where there is no terminal
FILE_EVERY = 0.5  # seconds between two writes of the progress file
RATES_AFTER = 60.0  # seconds of work before a rate is worth keeping, and between two records of it

_rates: tuple[Path, dict[str, Any]] | None = None


def keep_rates(folder: Path, **about: Any) -> None:
    """From here on, loops of this process leave their rate in `folder`/<first word of the label>.json, with `about`.

    What `dd-cli plan` corrects its estimates by, from a stage's first minute on.
    """
    global _rates
    _rates = (folder, about)


class Progress(Generic[T]):
    """Counts units of work; use it as an iterator (over what it was given) or as a context manager with `update`."""

    def __init__(self, items: Iterable[T] | None, total: int | None, unit: str, label: str, done: int) -> None:
        self.items, self.total, self.unit, self.label = items, total, unit, label
        self.step = self.first = done
        self.started = self.logged = self.rated = time.monotonic()
        self.written = float("-inf")
        self.path = Path(name) if (name := os.environ.get("DD_PROGRESS_FILE")) else None
        self.bar: Any = None
        if sys.stderr.isatty() and not os.environ.get("CI") and not os.environ.get("DD_QUIET"):
            self.bar = tqdm(total=total, initial=done, unit=f" {unit}", desc=label or None, dynamic_ncols=True)
        self._write()

    @property
    def rate(self) -> float | None:
        """Units per second of this process; what an earlier, interrupted run had finished does not count."""
        seconds = time.monotonic() - self.started
        return (self.step - self.first) / seconds if self.step > self.first and seconds > 0 else None

    def update(self, n: int = 1, **shown: float) -> None:
        """`n` more units are done; `shown` numbers (a loss) stand beside the bar or in the log line."""
        self.step += n
        now = time.monotonic()
        if self.bar is not None:
            if shown:
                self.bar.set_postfix({key: f"{value:.4g}" for key, value in shown.items()}, refresh=False)
            self.bar.update(n)
        elif now - self.logged >= LOG_EVERY:
            self.logged = now
            logger.info("%s", self._line(shown))
        if now - self.written >= FILE_EVERY:
            self._write()
        if now - self.rated >= RATES_AFTER:
            self.rated = now
            self._keep_rate()

    def _keep_rate(self) -> None:
        if _rates is None or self.rate is None or not self.label:
            return
        folder, about = _rates
        state = {"unit": self.unit, "rate": self.rate, "seconds": time.monotonic() - self.started, **about}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f".{self.label.split()[0]}.{os.getpid()}.part"
            part.write_text(json.dumps(state) + "\n")
            os.replace(part, folder / f"{self.label.split()[0]}.json")
        except OSError as error:  # a plan is a courtesy, too
            logger.warning("cannot keep the rate in %s: %s", folder, error)

    def close(self) -> None:
        """Write the last state and leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()
        self._write()

    def __enter__(self) -> "Progress[T]":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        if self.items is None:
            raise TypeError("this progress was given a total, not an iterable: call update() instead of iterating")
        try:
            for item in self.items:
                yield item
                self.update()
        finally:
            self.close()

    def _line(self, shown: dict[str, float]) -> str:
        of = f"/{self.total}" if self.total is not None else ""
        rate = f", {self.rate:.3g} {self.unit}/s" if self.rate else ""
        left = "" if self.total is None or not self.rate else f", {_time((self.total - self.step) / self.rate)} left"
        extra = "".join(f", {key} {value:.4g}" for key, value in shown.items())
        return f"{self.label or 'progress'}: {self.step}{of} {self.unit}{rate}{left}{extra}"

    def _write(self) -> None:
        if self.path is None:
            return
        self.written = time.monotonic()
        state = {"step": self.step, "total": self.total, "unit": self.unit, "rate": self.rate, "label": self.label}
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(state) + "\n")
            os.replace(part, self.path)
        except OSError as error:  # watching is a courtesy: it must never stop the work that is watched
            logger.warning("cannot write progress to %s: %s", self.path, error)
            self.path = None


def _time(seconds: float) -> str:
    """A rough duration: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def progress(work: Iterable[T] | int | None, *, unit: str, label: str = "", done: int = 0) -> Progress[T]:
    """A `Progress` over an iterable, or over a known total (or None: unknown) of units counted with `update`.

    `done` is what an earlier, interrupted run had already finished; with an iterable, it comes on top of its length.
    """
    if work is None or isinstance(work, int):
        return Progress(None, work, unit, label, done)
    total = len(cast(Sized, work)) + done if isinstance(work, Sized) else None
    return Progress(work, total, unit, label, done)
