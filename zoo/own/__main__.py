"""`dd-cli images add | remove`: the command line."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from dd.errors import DDError
from dd.system import command

app = typer.Typer(
    name="dd-cli images",
    help="Your own folders of images, from a first check to samples and a table.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Name = Annotated[str, typer.Argument(help="Name of the data set, its networks and its experiment.")]


@app.command()
def add(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Class folders, or images with metadata.csv or metadata.jsonl.")],
    test_folder: Annotated[Path | None, typer.Option(help="Test images; default: a share of every class.")] = None,
    size: Annotated[int, typer.Option(help="Side of the images in pixels: 16, 32, 64 or 128.")] = 32,
    minutes: Annotated[float, typer.Option(help="Time for all stages together on this machine, in minutes.")] = 35,
    licence: Annotated[str, typer.Option(help="Licence of the images, and of what is trained on them.")] = "not stated",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Scan and plan; write nothing.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Train, distil and evaluate at once.")] = False,
) -> None:
    """Scan a folder, plan its networks, add them to both params.yaml files and, with --run, train everything.

    The same command with --run resumes where an earlier one stopped.
    """
    from zoo.own import plan as planning
    from zoo.own import steps

    started = time.monotonic()
    planning.check_name(name)
    if (known := steps.known_folder(name)) is not None:
        if Path(known) != folder.expanduser().resolve():
            raise DDError(f"'{name}' is in zoo/params.yaml with another folder ({known}): choose another name")
        typer.echo(f"{name} is in params.yaml already, as it was planned then; dd-cli images remove {name} undoes it")
    else:
        steps.refuse_taken(name)
        plan, _ = planning.make_plan(name, folder, test_folder, size, minutes, licence)
        if run and not dry_run:
            steps.check_repository()
        for line in plan.lines():
            typer.echo(line)
        if dry_run:
            return
        steps.write(plan)
        typer.echo(f"wrote zoo/params.yaml and params.yaml: what is yours there is called {name}")
    if not run or dry_run:
        typer.echo(f"run it with: dd-cli images add {name} {folder} --run")
        return
    steps.run(name)
    for what, where in (
        ("samples", f"results/{name}/samples.png"),
        ("draw", f"dd-cli sample {name} --steps 1"),
        ("took", f"{(time.monotonic() - started) / 60:.1f} min"),
    ):
        typer.echo(f"{what:<9} {where}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A name given to 'images add'.")],
    keep_results: Annotated[bool, typer.Option("--keep-results", help="Keep results/NAME and the report.")] = False,
) -> None:
    """Undo add: entries, index, locks, data, networks, results. The folder of images is not touched."""
    from zoo.own import steps

    for line in steps.take_out(name, keep_results):
        typer.echo(f"removed {line}")
    typer.echo("DVC's cache keeps what it had until `dvc gc --workspace`")


def main() -> None:
    """Run the command line (`dd.system.command`)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    level = logging.WARNING if os.environ.get("DD_QUIET") else logging.INFO  # dd-cli --quiet images ...
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    command.main(app, "dd-cli images", "stopped; the same command goes on from here")


if __name__ == "__main__":
    main()
