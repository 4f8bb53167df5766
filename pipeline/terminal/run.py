"""`dd-cli run`: a run from the terminal, with a live table; through a Prefect server if there is one, else without."""

from functools import partial
from typing import Annotated

import typer
from rich.console import Console

from dd.system import command
from pipeline import graph, local, provenance, stage
from pipeline.checks import Run, check_run
from pipeline.events import listening
from pipeline.servers import server
from pipeline.stage import Options
from pipeline.terminal import command as terminal
from pipeline.terminal.table import StageTable

app = terminal.new_app()


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
    accelerator_limit: Annotated[int, typer.Option(help="Stages that may use the accelerator at once.")] = 1,
    dask_workers: Annotated[int, typer.Option(help="Dask workers of each trajectories stage; 0: no Dask.")] = 0,
    dry: Annotated[bool, typer.Option("--dry", help="Check everything and list what would run; run nothing.")] = False,
    use_server: terminal.UseServer = True,
    verbose: terminal.Verbose = False,
    quiet: terminal.Quiet = False,
) -> None:
    """Bring experiments up to date: their DVC stages in order, independent ones side by side.

    With a Prefect server (PREFECT_API_URL, or the one that `dd-cli ui` started) the run is seen there as well. Ctrl-C
    stops every stage; finished shards and checkpoints are kept, and the same command goes on from them.

    Exit status: 0 all is up to date; 1 a stage failed; 2 wrong input; 130 stopped.
    """
    root = graph.project()

    def work(console: Console) -> tuple[bool, str]:
        ready = check_run(root, targets or [], override or [], Options(force, pull, accelerator_limit, dask_workers))
        if dry:
            return True, _dry(ready)
        api = server.find(root) if use_server else None
        with StageTable(console, verbose, terminal.quiet(quiet)) as table, listening(table):
            if api:
                ok, text = _with_server(ready, targets or [], override or [], api)
            else:
                say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
                if warning := provenance.warning(root):
                    say(f"warning: {warning}")
                outcomes = local.execute(ready, say)
                ok, text = all(outcome.ok for outcome in outcomes), stage.summary(outcomes)
        return ok, "\n".join([text, *_places(ready, api)]) if ok else text

    terminal.end(work)


def _dry(ready: Run) -> str:
    """What would run, one line per stage. Only the digests of code are made anew: DVC compares with them."""
    if ready.quick:
        local.quick(ready)
    fresh = frozenset() if ready.options.force else stage.unchanged(ready.root, ready.plan, lambda _: None)
    runs = stage.would_run(ready.plan, fresh, [change.key for change in ready.changes])
    lines = [f"params.yaml: {change} (was {change.before})" for change in ready.changes]
    lines += [f"{name}: {'would run' if name in runs else 'unchanged'}" for name in ready.plan]
    return "\n".join([*lines, f"{len(runs)} of {len(ready.plan)} stages would run or be restored; nothing has run"])


def _places(ready: Run, api: str | None) -> list[str]:
    """Where the results, the report and the browser's view of the run are."""
    outs = [ready.root / out for node in ready.plan.values() for out in node.outs]
    results = list(dict.fromkeys(str(out.parent.relative_to(ready.root)) for out in outs if out.name == "rows.json"))
    pages = [str(page.relative_to(ready.root)) for out in outs if out.is_dir() for page in sorted(out.glob("*.html"))]
    ui = [api.removesuffix("/api")] if api else []
    named = (("results", results), ("report", pages), ("browser", ui))
    return [f"{name:<8} {', '.join(found)}" for name, found in named if found]


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
        accelerator_limit=options.accelerator_limit,
        dask_workers=options.dask_workers,
    )


def main() -> None:
    """Entry point of `python -m pipeline.terminal.run`."""
    command.main(app, "dd-cli run")


if __name__ == "__main__":
    main()
