"""`dd-cli evaluate`: samples under a published protocol, with other libraries' figures of the same images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dd.errors import DDError

if TYPE_CHECKING:
    from dd.evaluation.side_by_side import Report


def evaluate(
    what: Annotated[str, typer.Argument(help="An experiment, an npz of samples, or a folder of images.")],
    protocol: Annotated[str, typer.Option(help="adm (papers' FID), dd (the authors' own), clean, or fd-<dataset>.")],
    sampler: Annotated[
        str | None,
        typer.Option(help="For an experiment: a sampler's label as in the tables; default: its first student."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--images-count", "-n", min=2, help="For an experiment: number of images. [default: the protocol's]"
        ),
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="For an experiment: keep the samples as this npz.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all metrics as JSON.")] = False,
) -> None:
    """Measure images as a paper does, and compare with the published number of the same weights."""
    from dd.config import project_root
    from dd.evaluation.side_by_side import evaluate_experiment, evaluate_images
    from dd.system.device import choose_device

    path = Path(what)
    if path.suffix == ".npz" or path.is_dir():
        if sampler or count or keep:
            raise DDError("--sampler, --images-count and --keep belong to an experiment: leave them out")
        device = choose_device("auto", "evaluate")
        report = evaluate_images(path, protocol, project_root() / "work" / "evaluate", device)
    else:
        report = evaluate_experiment(what, protocol, sampler, count, keep)
    typer.echo(json.dumps(report.record(), indent=1) if as_json else "\n".join(lines(report)))


def lines(report: Report) -> list[str]:
    """One line a figure, then the protocol's other metrics, then the published number."""
    from dd.evaluation.side_by_side import TOLERANCE

    found = [f"{report.what}, protocol {report.protocol}, {report.images:,} images"]
    for figure in report.figures:
        value = "not measured" if figure.value is None else f"{figure.value:.3f}"
        error = f" ±{figure.error:.3f}" if figure.error is not None else ""
        why = f" ({figure.missing})" if figure.missing else ""
        found.append(f"{figure.metric:<14} {value}{error}  {figure.by}{why}")
    names = {"sfid": "sFID", "inception_score": "IS", "precision": "precision", "recall": "recall", "kid": "KID"}
    others = [f"{title} {report.row[key]:.4g}" for key, title in names.items() if report.row.get(key) is not None]
    found += ["; ".join(others)] if others else []
    if (known := report.published) is not None:
        if known.difference is None:
            found.append(f"published {known.value}: not comparable with another number of images")
        else:
            verdict = "within" if known.within else "outside"
            text = f"published {known.value}: {known.difference:+.3f}, {verdict} the {TOLERANCE} expected of the same"
            found.append(f"{text} weights at {report.images:,} images")
    return found + report.notes
