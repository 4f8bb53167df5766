"""`dd-cli dataset check`: what would be read of a folder of pictures, and why not the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dd.errors import DDError

app = typer.Typer(help="Folders of images as data sets.", no_args_is_help=True)
SHOWN = 20  # skipped files and classes that the text names


@app.callback()
def group() -> None:
    """Folders of images as data sets."""


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Class folders, or images with metadata.csv or metadata.jsonl.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Open every file and report what would be read; exit status 2 if the folder cannot be used."""
    import json as json_module

    from dd.datasets.folder import survey

    found = survey(folder.expanduser())
    report, problem = found.report(), found.refuse()
    if json:
        typer.echo(json_module.dumps(report | ({"error": problem} if problem else {}), indent=1, ensure_ascii=False))
        if problem:
            raise typer.Exit(2)
        return
    for line in lines(report):
        typer.echo(line)
    typer.echo(found.line())
    if problem:
        raise DDError(problem)


def lines(report: dict[str, Any]) -> list[str]:
    """The report in words, without its last line."""
    counts = report["classes"]
    shown = [f"{count:>7}  {name}" for name, count in list(counts.items())[:SHOWN]]
    if len(counts) > SHOWN:
        shown.append(f"         and {len(counts) - SHOWN} more classes")
    if report["captions"]:
        shown.append(f"{report['captions']:>7}  pictures with captions")
    if report["sizes"]:
        sizes = ", ".join(f"{name} {width} x {height}" for name, (width, height) in report["sizes"].items())
        modes = ", ".join(f"{count} {mode}" for mode, count in report["modes"].items())
        shown.append(f"sizes    {sizes}")
        shown.append(f"modes    {modes}; {'in colour' if report['colour'] else 'grey'}")
    skipped = report["skipped"]
    shown += [f"skipped  {one['file']}: {one['reason']}" for one in skipped[:SHOWN]]
    if len(skipped) > SHOWN:
        shown.append(f"skipped  {len(skipped) - SHOWN} more (all: --json)")
    return [*shown, *(f"warning  {warning}" for warning in report["warnings"])]
