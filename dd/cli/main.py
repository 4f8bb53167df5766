"""`dd-cli`: the commands of dd/cli, one-line errors, logging."""

from __future__ import annotations

import logging
import os
from typing import Annotated

import typer

from dd import __version__
from dd.bench import demo as bench_demo
from dd.bench import evaluation as bench_evaluation
from dd.bench import map_accuracy as bench_map
from dd.bench import precision as bench_precision
from dd.bench import sampling as bench_sampling
from dd.bench import shards as bench_shards
from dd.bench import smoke as bench_smoke
from dd.bench import training as bench_training
from dd.cli import (
    dataset,
    doctor,
    experiment,
    export_npz,
    images,
    publish,
    reference,
    report,
    run,
    sample,
    select,
    shards,
    zoo,
)
from dd.cli.measure import check_npz, compare, evaluate
from dd.cli.scale import plan
from dd.system import command

app = typer.Typer(
    name="dd-cli",
    help="Distilled Decoding: image autoregressive models as one- and two-step generators.",
    epilog="Exit status: 0 done; 1 something failed or is missing; 2 wrong input, with one line that says what; "
    "130 stopped with Ctrl-C; 141 the reader of a pipe has exited. NO_COLOR turns colours off.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dd {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show debugging messages.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress: only results, warnings and errors.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Distilled Decoding: image autoregressive models as one- and two-step generators."""
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    if quiet:
        os.environ["DD_QUIET"] = "1"  # for dd/system/progress.py, also of the processes that a command starts
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if not verbose:
        for name in ("httpx", "matplotlib", "PIL", "dvc"):
            logging.getLogger(name).setLevel(logging.WARNING)


def _tune() -> None:
    from dd.system.machine import tune_process

    tune_process()


bench = typer.Typer(
    help="Measure speed on this machine, side by side in one run.", no_args_is_help=True, callback=_tune
)
bench.command()(bench_map.map)
bench.command()(bench_precision.precision)
bench.command()(bench_shards.trajectories)
bench.command()(bench_shards.shards)
bench.command()(bench_smoke.smoke)
bench.command()(bench_sampling.sampling)
bench.command()(bench_training.training)
bench.command()(bench_evaluation.evaluation)
bench.command()(bench_demo.demo)

app.command()(sample.sample)
app.command()(select.select)
app.command()(report.report)
run.register(app)
images.register(app)
app.add_typer(experiment.app, name="experiment")
app.add_typer(zoo.app, name="zoo")
app.command()(plan.plan)
app.add_typer(reference.app, name="reference")
app.add_typer(dataset.app, name="dataset")
app.add_typer(shards.app, name="shards")
app.command("export-npz")(export_npz.export_npz)
app.command("check-npz")(check_npz.check_npz)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(publish.export)
app.command()(publish.push)
app.command()(publish.app)
app.add_typer(bench, name="bench")
app.command()(doctor.doctor)


def main() -> None:
    """Run the command line (`dd.system.command`)."""
    command.main(app, "dd-cli")


if __name__ == "__main__":
    main()
