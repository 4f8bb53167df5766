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
        bool, typer.Option("--rehearse", help="Cut down: full width, two random blocks, minutes on any machine.")
    ] = False,
) -> None:
    """Copy a preset into params.yaml, comments kept, then say how to run it."""
    from dd.config import project_root
    from dd.presets import add_experiment

    added = add_experiment(project_root() / "params.yaml", preset, name, rehearse)
    typer.echo(f"added '{added}' to params.yaml; run it with: dvc repro evaluate@{added}")
