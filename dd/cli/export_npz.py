"""`dd-cli export-npz`: samples as ADM's npz for the official evaluator, or as a folder of PNGs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_npz(
    experiment: Annotated[str, typer.Argument(help="An experiment of params.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The npz (one array arr_0, N x H x W x 3 uint8)")],
    sampler: Annotated[
        str | None,
        typer.Option(help="One of the experiment's samplers, by its label in tables; default: its first student."),
    ] = None,
    count: Annotated[int, typer.Option("--images-count", "-n", min=2, help="How many images.")] = 50_000,
    images: Annotated[Path | None, typer.Option("--images", help="Also write PNGs into this folder.")] = None,
) -> None:
    """Draw images and write them for the official evaluator (ADM protocol: 50,000 images, classes in turn)."""
    from dd.evaluation.export import export

    typer.echo(export(experiment, sampler, count, out, images))
