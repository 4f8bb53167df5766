"""`dd-cli experiment list | add`: what params.yaml holds, and paper-scale presets to put into it."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Experiments of params.yaml, and presets to add to it.", no_args_is_help=True)


@app.command("list")
def list_experiments() -> None:
    """Show the experiments of params.yaml, then the presets that can be added."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    from dd.config import load_params
    from dd.presets import describe, preset_names

    present = load_params().experiments
    mine = Table(Column("in params.yaml", no_wrap=True), "family", "teacher", "student", box=SIMPLE_HEAD)
    for name, experiment in present.items():
        mine.add_row(name, experiment.family, experiment.teacher.name, experiment.student or "distilled here")
    presets = Table(Column("preset", no_wrap=True), "added with: dd-cli experiment add PRESET", box=SIMPLE_HEAD)
    for name in preset_names():
        presets.add_row(name, describe(name) + (" (added)" if name in present else ""))
    console = Console()
    console.print(mine)
    console.print(presets)


@app.command()
def add(
    preset: Annotated[str, typer.Argument(help="One of 'dd-cli experiment list'.")],
    name: Annotated[str | None, typer.Option("--as", help="Name of the new experiment.")] = None,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearse", help="A short test version: full width, two random blocks, minutes on any machine."),
    ] = False,
    teacher: Annotated[str | None, typer.Option(help="Another teacher, such as one from 'dd-cli zoo import'.")] = None,
) -> None:
    """Copy a preset into params.yaml with its comments, then print what is missing and how to run it."""
    from dd.config import load_experiment, project_root
    from dd.presets import add_experiment, preset_experiment
    from dd.presets.needs import missing

    added = add_experiment(project_root() / "params.yaml", preset, name, rehearse, teacher)
    typer.echo(f"added '{added}' to params.yaml; run it with: dvc repro evaluate@{added}")
    lacking = missing(load_experiment(added), project_root())
    if rehearse:  # which leaves out what is not there: the preset itself will want it
        lacking += [need for need in missing(preset_experiment(preset), project_root()) if need not in lacking]
    if lacking:
        typer.echo("the preset itself will need:" if rehearse else "before that, get what it will need:")
        for need in lacking:
            typer.echo(f"- {need.what}: {need.how}")


@app.command()
def needs(
    name: Annotated[str, typer.Argument(help="An experiment of params.yaml.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List what all stages of an experiment need; exit status 1 if something is missing."""
    from dataclasses import asdict

    from dd.config import load_experiment, project_root
    from dd.presets.needs import needs as list_needs

    found = list_needs(load_experiment(name), project_root())
    if json:
        import json as json_module

        typer.echo(json_module.dumps([asdict(need) for need in found], indent=1))
    else:
        for need in found:
            typer.echo(f"{'ok     ' if need.here else 'missing'} {need.what}{'' if need.here else f': {need.how}'}")
    raise typer.Exit(0 if all(need.here for need in found) else 1)
