"""`dd-cli bench evaluation`: how long the metrics of drawn images take, beside clean-fid's own folder path."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

    from dd.evaluation.measure import Evaluation
    from dd.metrics.protocols import Protocol

PATHS = ("streamed: all metrics with errors", "clean-fid: PNGs written and read, FID alone")


def evaluation(
    images: Annotated[int, typer.Option("--images", "-n", min=10, help="How many images.")] = 10_000,
    protocol: Annotated[
        str, typer.Option(help="A protocol whose extractor and reference ship: fd-<dataset>.")
    ] = "fd-fashion",
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 250,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each, alternating; the median is reported.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the images, which are uniform noise.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="As JSON, and into results/bench/evaluation.json.")] = False,
) -> None:
    """Time all metrics of N images, from opening to the last error bar, and clean-fid's FID of the same images."""
    from dd.bench.output import report

    report("evaluation", measure(images, protocol, batch, repeats, seed), json)


def measure(images: int, protocol_name: str, batch: int, repeats: int, seed: int) -> list[dict[str, Any]]:
    """Median seconds, and distances, of both paths on the same images."""
    import torch

    from dd.metrics.protocols import protocol

    chosen, runs = protocol(protocol_name), []
    with tempfile.TemporaryDirectory(prefix="dd-bench-") as name:
        _both(chosen, 20, batch, torch.Generator(), Path(name) / "first")  # imports, and the networks' first pass
        for number in range(repeats):
            generator = torch.Generator().manual_seed(seed)
            runs.append(_both(chosen, images, batch, generator, Path(name) / str(number)))
    return [
        {
            "path": path,
            "protocol": protocol_name,
            "images": images,
            "batch": batch,
            "repeats": repeats,
            "seconds": statistics.median(run[i][0] for run in runs),
            "distance": runs[0][i][1],
        }
        for i, path in enumerate(PATHS)
    ]


def _both(
    chosen: Protocol, images: int, batch: int, generator: torch.Generator, folder: Path
) -> list[tuple[float, float]]:
    """Seconds and distance of each of PATHS."""
    import torch

    from dd.evaluation.folder import clean_fid_of_folder
    from dd.evaluation.measure import open_evaluation
    from dd.metrics.images import write_pngs

    opened, opening = _timed(lambda: open_evaluation(chosen, images, folder))
    if opened.extractor is None or opened.reference is None:
        raise typer.BadParameter(str(opened.missing), param_hint="--protocol")
    extractor, reference = opened.extractor, opened.reference
    size = extractor.image_size or 256
    pictures = torch.randint(0, 256, (images, 3, size, size), generator=generator, dtype=torch.uint8)
    value, all_metrics = _timed(lambda: _ours(opened, pictures, batch))
    _, writing = _timed(lambda: write_pngs(folder / "png", pictures))
    theirs, reading = _timed(lambda: clean_fid_of_folder(folder / "png", extractor, reference, batch))
    return [(opening + all_metrics, value), (writing + reading, theirs)]


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
