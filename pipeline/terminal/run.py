"""`dd-cli run`: a run from the terminal, with a live table; through a Prefect server if there is one, else without."""

from typing import Annotated

import typer
from rich.console import Console

from pipeline import graph, local, provenance, stage
from pipeline.checks import Run, prepare
from pipeline.events import listening
from pipeline.servers import server
from pipeline.stage import Options
from pipeline.terminal import command as terminal
from pipeline.terminal.table import StageTable

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


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
    root = graph.project()

    def work(console: Console) -> tuple[bool, str]:
        ready = prepare(root, targets or [], override or [], Options(force, pull, slots, dask_workers))
        api = server.find(root) if use_server else None
        with StageTable(console, verbose) as table, listening(table):
            if api:
                return _with_server(ready, targets or [], override or [], api)
            if warning := provenance.warning(root):
                console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
            outcomes = local.execute(ready)
            return all(outcome.ok for outcome in outcomes), stage.summary(outcomes)

    terminal.end(work)


def _with_server(ready: Run, targets: list[str], overrides: list[str], api: str) -> tuple[bool, str]:
    """The flow in this process, reported to the server at `api`."""
    options = ready.options
    return terminal.flow(
        ready.root,
        api,
        "experiments",
        targets=targets,
        force=options.force,
        overrides=overrides,
        pull=options.pull,
        slots=options.slots,
        dask_workers=options.dask_workers,
    )


def main() -> None:
    """Entry point of `python -m pipeline.terminal.run`."""
    app(prog_name="dd-cli run")


if __name__ == "__main__":
    main()
