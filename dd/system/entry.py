"""The command line that all stages share: arguments, logging, one-line errors, the time it took."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from dd.errors import DDError, Stopped, TemporaryError
from dd.system.files import explained
from dd.system.launch import relaunch
from dd.system.machine import tune_process
from dd.system.signals import ignore_warnings

log = logging.getLogger(__name__)
INTERRUPTED = 128 + 2  # exit status after Ctrl-C


def stage_parser(doc: str | None, what: str = "a key of `experiments` in params.yaml") -> argparse.ArgumentParser:
    """A parser for a stage's one name; `doc` is the module's docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help=what)
    return parser


def run_stage(
    work: Callable[[argparse.Namespace], str], parser: argparse.ArgumentParser, several: bool = False
) -> None:
    """Do a stage's work and log the line it returns, with the time. A DDError ends the process with one line.

    several: the stage shares its work among the processes that $DD_LAUNCH asks for (`dd.system.launch`).

    The exit status is 1, or that of a TemporaryError, which tells the caller that another try may succeed, or 143 where
    SIGTERM ended the work after it was saved, or 130 after Ctrl-C. With --dry-run it is 1 where something is missing.
    SIGUSR1 is a request to save (`dd.system.signals`).
    """
    stage = _stage()
    if stage:
        parser.add_argument("--dry-run", action="store_true", help="say what would be made, and write nothing")
    arguments = parser.parse_args()
    if stage and arguments.dry_run:
        _dry_run(stage, arguments.name)
    started = time.monotonic()
    try:
        with ignore_warnings():
            if several:
                relaunch(arguments)
            tune_process()
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
            with explained():
                done = work(arguments)
    except TemporaryError as error:
        log.error("error: %s", error)
        raise SystemExit(error.status) from None
    except Stopped as error:
        log.warning("%s", error)
        raise SystemExit(error.status) from None
    except KeyboardInterrupt:
        log.warning("stopped")
        raise SystemExit(INTERRUPTED) from None
    except DDError as error:
        raise SystemExit(f"error: {error}") from None
    if done:
        log.info("%s (%.0f s)", done, time.monotonic() - started)


def _stage() -> str | None:
    """This process's stage, where it is one of an experiment's (`dd.presets.dry_run` knows them)."""
    name = getattr(sys.modules["__main__"].__spec__, "name", None) or ""
    stage = name.removeprefix("stages.")
    return stage if name in ("stages.teacher", "stages.trajectories", "stages.distill", "stages.evaluate") else None


def _dry_run(stage: str, name: str) -> NoReturn:
    """Say what the stage would do, and end. Found by its name: no result follows from it (`dd.system.code`)."""
    try:
        found = importlib.import_module("dd.presets.dry_run").dry_run(stage, name)
    except DDError as error:
        raise SystemExit(f"error: {error}") from None
    sys.stdout.write("\n".join(found.lines) + "\n")
    raise SystemExit(1 if found.lacking else 0)
