"""`dd-cli check-npz`: what the ADM evaluator would refuse or mis-measure in a file of samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dd.metrics.sample_files import Check


def check_npz(
    samples: Annotated[Path, typer.Argument(help="The npz: one array arr_0 (N, H, W, 3) uint8.")],
    protocol: Annotated[str, typer.Option(help="Protocol whose number and size of images are expected.")] = "adm",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found, as JSON.")] = False,
) -> None:
    """Check samples before an upload or a run of the official evaluator; exit status 1 if it would measure wrongly."""
    from dd.metrics.protocols import protocol as named
    from dd.metrics.sample_files import check_samples

    check = check_samples(samples, named(protocol))
    typer.echo(json.dumps(check.record(), indent=1) if as_json else "\n".join(lines(check)))
    raise typer.Exit(0 if check.good else 1)


def lines(check: Check) -> list[str]:
    """What was found, in plain lines: the facts, then each finding."""
    facts = [f"{check.path}: {check.shape}, {check.dtype}"]
    if check.lowest is not None:
        facts.append(f"values {check.lowest:g} to {check.highest:g}; {check.duplicates} copies; {check.blank} blank")
    if check.classes is not None:
        facts.append(f"{check.classes} classes in arr_1")
    found = [f"{one.level}: {one.text}" for one in check.findings]
    return [*facts, *found, "fit for the evaluator" if check.good else "not fit for the evaluator"]
