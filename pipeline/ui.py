"""`make ui`: a Prefect server of this project alone, and the flows in it, ready to be started from the browser."""

import os
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from dd.errors import DDError
from pipeline import graph, server

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Wanted port; another is taken if it is in use.")] = server.PORT,
    limit: Annotated[int, typer.Option(help="Flow runs at once.")] = 4,
) -> None:
    """Start the project's Prefect server on the loopback and serve the flows; Ctrl-C ends both and all their runs."""
    console = Console()
    root = graph.project()
    try:
        graph.read(root)
        _refuse_second(root)
        os.environ.update(server.settings(root))
        _serve(root, console, port, limit)
    except DDError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None


def _refuse_second(root: Path) -> None:
    own = server.recorded(root)
    if own and server.healthy(own.api):
        raise DDError(
            f"expected no server of this project, found one at {own.ui} (process {own.pid}): use it or end it"
        )


def _serve(root: Path, console: Console, wanted: int, limit: int) -> None:
    port = server.free_port(wanted)
    api = f"http://{server.HOST}:{port}/api"
    children = [server.start(root, port)]
    try:
        os.environ.update(server.settings(root, api))
        files_port = server.free_port(port + 1)
        files = f"http://{server.HOST}:{files_port}"
        os.environ["DD_FILES_URL"] = files
        children.append(server.serve_files(root, files_port))
        with server.record(root, server.Server(api, files, os.getpid())):
            console.print(f"Prefect UI: http://{server.HOST}:{port}   report: {files}/report.html   Ctrl-C ends both")
            _deployments(limit)
    finally:
        for child in children:
            server.end(child)


def _deployments(limit: int) -> None:
    from prefect import serve  # after the settings are in the environment
    from prefect.deployments.runner import RunnerDeployment

    from pipeline import flows

    deployments = [
        flows.experiments.to_deployment("here", description="Bring experiments up to date in this working tree."),
        flows.sweep.to_deployment(
            "here", description="A grid over one experiment's parameters, in copies of the tree."
        ),
    ]
    serve(*cast(list[RunnerDeployment], deployments), print_starting_message=False, limit=limit, query_seconds=1)


def main() -> None:
    """Entry point of `python -m pipeline.ui`."""
    app(prog_name="make ui")


if __name__ == "__main__":
    main()
