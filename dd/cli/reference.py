"""`dd-cli reference build`: the reference of a protocol from a folder of real images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="References: statistics of real images that samples are measured against.", no_args_is_help=True)


@app.command()
def build(
    protocol: Annotated[str, typer.Argument(help="Protocol whose network is used: adm, dd, clean or fd-<dataset>.")],
    images: Annotated[Path, typer.Argument(help="Folder of images of one size; its subfolders are classes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The reference, a .safetensors file.")],
    source: Annotated[str, typer.Option(help="Origin of the images, recorded in the file.")] = "",
    extractor: Annotated[Path | None, typer.Option(help="The network's weights, if elsewhere.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Measure a folder of real images with a protocol's network; set `evaluate.reference` to the file."""
    from dd.metrics.references import reference_of_folder

    made = reference_of_folder(out, protocol, images, source or images.name, extractor, device)
    typer.echo(f"wrote {out}: {made.gaussian.count} images, {made.classes} classes, SHA-256 {made.sha256[:12]}...")
