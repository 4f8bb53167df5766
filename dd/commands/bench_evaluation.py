"""`dd-cli bench evaluation`: how long the metrics of drawn images take, beside clean-fid's own folder path."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dd.metrics.evaluate import Evaluation


def evaluation(
    images: Annotated[int, typer.Option("--images", "-n", min=10, help="How many images.")] = 10_000,
    protocol: Annotated[
        str, typer.Option(help="A protocol whose extractor and reference ship: fd-<dataset>.")
    ] = "fd-fashion",
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 250,
    seed: Annotated[int, typer.Option(help="Of the images, which are uniform noise.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Time all metrics of N images, from opening to the last error bar, and clean-fid's FID of the same images."""
    found = measure(images, protocol, batch, seed)
    if json:
        import json as json_module

        typer.echo(json_module.dumps(found, indent=1))
        return
    typer.echo(f"{images} images, {found['threads']} threads, protocol {protocol}")
    for row in found["rows"]:
        typer.echo(f"  {row['path']:<44} {row['seconds']:7.1f} s   distance {row['value']:.6g}")


def measure(images: int, protocol_name: str, batch: int, seed: int) -> dict[str, Any]:
    """Seconds and distances of both paths on the same images."""
    import torch

    from dd.metrics.evaluate import open_evaluation
    from dd.metrics.folder import clean_fid_of_folder
    from dd.metrics.images import write_pngs
    from dd.metrics.protocols import protocol

    with tempfile.TemporaryDirectory(prefix="dd-bench-") as name:
        folder = Path(name)
        opened, opening = _timed(lambda: open_evaluation(protocol(protocol_name), images, folder))
        if opened.extractor is None or opened.reference is None:
            raise typer.BadParameter(str(opened.missing), param_hint="--protocol")
        extractor, reference = opened.extractor, opened.reference
        size = extractor.image_size or 256
        generator = torch.Generator().manual_seed(seed)
        shape = (images, 3, size, size)
        pictures = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        value, all_metrics = _timed(lambda: _ours(opened, pictures, batch))
        _, writing = _timed(lambda: write_pngs(folder / "png", pictures))
        theirs, reading = _timed(lambda: clean_fid_of_folder(folder / "png", extractor, reference, batch))
    rows = [
        {"path": "ours: streamed, all metrics with errors", "seconds": opening + all_metrics, "value": value},
        {"path": "clean-fid: PNGs written and read, FID alone", "seconds": writing + reading, "value": theirs},
    ]
    return {"images": images, "protocol": protocol_name, "threads": torch.get_num_threads(), "rows": rows}


def _ours(opened: Evaluation, pictures: Any, batch: int) -> float:
    import torch

    classes = max(opened.reference.classes, 1) if opened.reference else 1
    labels = torch.arange(len(pictures)) % classes
    measured = opened.measure(zip(pictures.split(batch), labels.split(batch), strict=True))
    assert measured.value is not None
    return measured.value.value


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started
