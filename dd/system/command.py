"""The command line of every program here: what the user can solve is one line and an exit status.

0 done; 1 something failed or is missing; 2 wrong input; 130 stopped with Ctrl-C; 141 the reader of a pipe went away.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import typer

from dd.errors import DDError
from dd.system.files import explained

WRONG, INTERRUPTED, PIPE_CLOSED = 2, 130, 141
# Typer brings a click of its own in some versions: this is the UsageError of whichever it uses.
UsageError: Any = typer.BadParameter.__base__


def main(app: typer.Typer, name: str, stopped: str = "stopped") -> NoReturn:
    """Run `app` under the name that its help shows, and leave. stopped: the line after Ctrl-C."""
    try:
        with explained():
            status = app(prog_name=name, standalone_mode=False)
        if status == INTERRUPTED:  # Typer's own answer to Ctrl-C
            raise KeyboardInterrupt
    except DDError as error:
        status = _say(f"error: {error}", WRONG)
    except UsageError as error:
        status = _say(usage(error, name), WRONG)
    except (KeyboardInterrupt, typer.Abort):
        status = _say(stopped, INTERRUPTED)
    except BrokenPipeError:  # `dd-cli ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = PIPE_CLOSED
    sys.exit(status if isinstance(status, int) else 0)


def usage(error: Any, name: str) -> str:
    """A mistake in options or arguments in one line; nothing where help was shown instead."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(error.format_message())
    said = " ".join(str(error.format_message()).split()).rstrip(".")
    path = error.ctx.command_path if error.ctx else name
    return f"error: {said[:1].lower()}{said[1:]}; {path} -h shows what it takes"


def _say(line: str, status: int) -> int:
    if line:
        typer.echo(line, err=True)
    return status
