"""`dd-cli select`: noise, guidance and temperature of an experiment's rows, chosen on a validation reference."""

from __future__ import annotations

from typing import Annotated

import typer


def select(
    experiment: Annotated[str, typer.Argument(help="An experiment of params.yaml that is already distilled.")],
    reference: Annotated[
        str | None, typer.Option(help="Protocol to choose on; default: the experiment's own with '-validation'.")
    ] = None,
    images: Annotated[int, typer.Option("--images", "-n", min=2, help="Images for each value that is tried.")] = 5_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be chosen, write nothing.")] = False,
) -> None:
    """Choose each row's noise_scale, and the teacher's guidance and temperature, and write them into params.yaml.

    The values are chosen on images that are not in the reported reference. `*` marks the chosen value of each row.
    """
    from dd.config import project_root
    from dd.evaluation.selection import select as search
    from dd.evaluation.selection import write_selection

    found = search(experiment, reference, images, lambda knob: typer.echo(str(knob)))
    if not found.rows:
        typer.echo(f"no row of {experiment} is drawn here: nothing to choose")
    elif dry_run:
        typer.echo(f"chosen on {found.reference}; params.yaml is as it was (--dry-run)")
    else:
        write_selection(project_root() / "params.yaml", found)
        typer.echo(f"chosen on {found.reference}, written to params.yaml; now run: dvc repro evaluate@{experiment}")
