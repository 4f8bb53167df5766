"""`dd-cli sweep`: a grid over the parameters of one experiment from the terminal (see sweep.py)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dd.system import command
from pipeline import graph, local, stage, sweep
from pipeline.events import listening
from pipeline.servers import server
from pipeline.terminal import command as terminal
from pipeline.terminal.table import StageTable

app = terminal.new_app()


@app.command(name="sweep")
def run(
    experiment: Annotated[str, typer.Argument(help="The experiment whose parameters are varied.")],
    grid: Annotated[
        list[str], typer.Argument(help="distill.lr=1e-3,3e-4 distill.steps=100,200: every combination is a point.")
    ],
    jobs: Annotated[int, typer.Option(help="Points to run at once.")] = 1,
    dry: Annotated[bool, typer.Option("--dry", help="Check the grid and list its points; run nothing.")] = False,
    use_server: terminal.UseServer = True,
    verbose: terminal.Verbose = False,
    quiet: terminal.Quiet = False,
) -> None:
    """Run every point of a grid as a DVC experiment in a copy of the working tree, which itself stays as it is.

    All points are checked before the first one runs. The results are a table here, in `dvc exp show`, and with a
    Prefect server in its UI; `dvc exp apply NAME` applies a point.
    """
    root = graph.project()

    def work(console: Console) -> tuple[bool, str]:
        values = sweep.parse(grid)
        ready = sweep.check_sweep(root, experiment, values, jobs)
        if dry:
            console.print(show([{"experiment": point.name, **point.values} for point in ready.points]))
            return True, f"{len(ready.points)} points; nothing has run"
        api = server.find(root) if use_server else None
        with StageTable(console, verbose, terminal.quiet(quiet)) as table, listening(table):
            if api:
                ok, text = terminal.flow(root, api, "sweep", experiment=experiment, grid=values, jobs=jobs)
            else:
                outcomes = local.sweep(ready)
                ok, text = all(outcome.ok for outcome in outcomes), stage.summary(outcomes, "points")
        if rows := sweep.table(ready):
            console.print(show(rows))
        return ok, text

    terminal.end(work)


def show(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows as a table; a value that is not there is a dash."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        cells = (row.get(column) for column in columns)
        table.add_row(*("–" if v is None else f"{v:.4g}" if isinstance(v, float) else escape(str(v)) for v in cells))
    return table


def main() -> None:
    """Entry point of `python -m pipeline.terminal.run_sweep`."""
    command.main(app, "dd-cli sweep")


if __name__ == "__main__":
    main()
