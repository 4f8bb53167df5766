"""`dd-cli run`: a run from the terminal, with a live table; through a Prefect server if there is one, else without."""

import os
import signal
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from dd.errors import DDError
from pipeline import graph, local, server, stage
from pipeline.prepare import Run, prepare
from pipeline.stage import Options
from pipeline.table import StageTable
from pipeline.watch import listening

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
INTERRUPTED, FAILED, WRONG = 130, 1, 2  # exit statuses


@app.command()
def run(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Experiments, groups (distill) or stages (distill@NAME); none: everything."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", "-S", help="distill.lr=1e-4 or NAME.distill.lr=1e-4; changes params.yaml."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Run the stages even if nothing changed.")] = False,
    pull: Annotated[
        bool, typer.Option("--pull", help="Fetch what the DVC remote has instead of computing it.")
    ] = False,
    slots: Annotated[int, typer.Option(help="Stages that may use the accelerator at once.")] = 1,
    dask_workers: Annotated[int, typer.Option(help="Dask workers of each trajectories stage; 0: no Dask.")] = 0,
    use_server: Annotated[
        bool, typer.Option("--server/--no-server", help="Show the run in a Prefect server that runs; or do without.")
    ] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the output of the stages.")] = False,
) -> None:
    """Bring experiments up to date: their DVC stages in order, independent ones side by side.

    With a Prefect server (PREFECT_API_URL, or the one that `make ui` started) the run is seen there as well. Ctrl-C
    stops every stage; finished shards and checkpoints are kept, and the same command goes on from them.
    """
    console = Console()
    signal.signal(signal.SIGTERM, _interrupt)
    root = graph.project()
    try:
        ready = prepare(root, targets or [], override or [], Options(force, pull, slots, dask_workers))
        api = server.find(root) if use_server else None
        with StageTable(console, verbose) as table, listening(table):
            ok, text = _with_server(ready, targets or [], override or [], api) if api else _alone(ready)
    except DDError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(WRONG) from None
    except KeyboardInterrupt:
        console.print("stopped; finished shards and checkpoints are kept, the same command goes on from them")
        raise typer.Exit(INTERRUPTED) from None
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if ok else FAILED)


def _alone(ready: Run) -> tuple[bool, str]:
    outcomes = local.execute(ready)
    return all(outcome.ok for outcome in outcomes), stage.summary(outcomes)


def _with_server(ready: Run, targets: list[str], overrides: list[str], api: str) -> tuple[bool, str]:
    """The flow in this process, reported to the server at `api`."""
    os.environ.update(server.settings(ready.root, api))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")  # the table shows the run; the server gets all lines
    from prefect.exceptions import TerminationSignal  # Prefect reads its settings when it is first imported

    from pipeline import flows

    options = ready.options
    try:
        state = flows.experiments(
            targets=targets,
            force=options.force,
            overrides=overrides,
            pull=options.pull,
            slots=options.slots,
            dask_workers=options.dask_workers,
            return_state=True,
        )
    except TerminationSignal:
        raise KeyboardInterrupt from None
    if state.is_cancelled():
        raise KeyboardInterrupt
    return state.is_completed(), state.message or state.name or ""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of `python -m pipeline.run`."""
    app(prog_name="dd-cli run")


if __name__ == "__main__":
    main()
