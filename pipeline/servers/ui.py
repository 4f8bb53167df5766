"""`dd-cli ui` and `make ui`: a Prefect server of this project alone, and its flows, to be started from the browser.

This process starts three others, each under a supervisor (supervisor.py), and then only waits: the server, a small file
server for the report, and the runner of the flows (serve.py). However this process ends, SIGKILL included, the
supervisors end the three and every run below them.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dd.errors import DDError
from dd.system import command
from dd.system.files import explained
from pipeline import graph
from pipeline.servers import mark_crashed, server
from pipeline.terminal import command as terminal

TICK = 0.2  # seconds between two looks at the children

app = terminal.new_app()


@app.command()
def ui(
    port: Annotated[
        int, typer.Option(help="Preferred port; another one is used if it is taken.", min=0, max=65535)
    ] = server.PORT,
    limit: Annotated[int, typer.Option(help="Maximum number of concurrent flow runs.", min=1)] = 4,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="Also end when the parent process (make) ends.")
    ] = False,
) -> None:
    """Start the project's Prefect server on the loopback and serve the flows; Ctrl-C ends both and all their runs."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminal.interrupt)
    root = graph.project()
    parent = os.getppid() if with_parent else None
    try:
        with explained():
            graph.read(root)
            _refuse_second(root)
            _serve(root, Console(), port, limit, parent)
    except DDError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _refuse_second(root: Path) -> None:
    own = server.recorded(root)
    if own and server.healthy(own.api):
        raise DDError(
            f"expected no server of this project, found one at {own.ui} (process {own.pid}): use it or end it"
        )


def _serve(root: Path, console: Console, wanted: int, limit: int, parent: int | None) -> None:
    port = server.free_port(wanted)
    api = f"http://{server.HOST}:{port}/api"
    names = list(server.DEPLOYMENTS.values())
    if port != wanted:
        console.print(f"port {wanted} is taken, the server gets {port}", highlight=False)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    children = {"server": server.start(root, port, say=say)}
    try:
        mark_crashed.mark_unfinished(api, names)  # a server that was killed could not be told how its runs ended
        files_port = server.free_port(port + 1)
        files = f"http://{server.HOST}:{files_port}"
        children["files"] = server.serve_files(root, files_port)
        env = {**server.settings(root, api), "DD_FILES_URL": files}
        runner = ["pipeline.servers.serve", str(limit)]
        children["runner"] = server.supervised(runner, root, server.home(root) / "runner.log", env)
        with server.record(root, server.Server(api, files, os.getpid())):
            console.print(
                f"Prefect UI: http://{server.HOST}:{port}   report: {files}/report.html   Ctrl-C ends both",
                soft_wrap=True,
            )
            watch(children, server.home(root), parent)
    finally:
        for name in reversed(children):
            if name == "server":
                mark_crashed.mark_unfinished(api, names)  # the runner has ended by now, and with it its runs
            server.end(children[name])


def watch(children: Mapping[str, "subprocess.Popen[bytes]"], logs: Path, parent: int | None) -> None:
    """Wait while all children live; return when `parent` ends. Raises DDError if a child ends by itself."""
    while parent is None or os.getppid() == parent:
        for name, child in children.items():
            if child.poll() is not None:
                raise DDError(f"expected the {name} to go on, it ended: its log is {logs / f'{name}.log'}")
        time.sleep(TICK)


def main() -> None:
    """Entry point of `python -m pipeline.servers.ui`."""
    command.main(app, "dd-cli ui")


if __name__ == "__main__":
    main()
