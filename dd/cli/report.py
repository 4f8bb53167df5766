"""`dd-cli report`: the results table in any format, and the page."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """Formats of the table."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"
    latex = "latex"
    html = "html"


def report(
    experiments: Annotated[list[str] | None, typer.Argument(help="experiments to show; default: all")] = None,
    format: Annotated[
        Format, typer.Option("--format", "-f", help="how to print it; html is the whole page")
    ] = Format.table,
    paper: Annotated[bool, typer.Option("--paper", help="add the published numbers, in blocks of their own")] = False,
    compare: Annotated[
        str | None, typer.Option(metavar="REV", help="show the difference to another git revision or DVC experiment")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="write to a file instead of the screen")] = None,
) -> None:
    """Show the results of all experiments: measured, released and published numbers in separate blocks."""
    from dd.config import project_root
    from dd.report.collect import collect, render_comparison, rows_at
    from dd.report.collect import compare as difference
    from dd.system.files import write_text

    root = project_root()
    rows = collect(root, experiments or [])
    if compare is not None:
        text = render_comparison(difference(rows, rows_at(root, compare, experiments or []), compare), format.value)
    elif format is Format.html:
        from dd.report.page import render_page

        text = render_page(root, rows, paper)
    else:
        from dd.report.table import published_rows, render

        families = sorted({row["family"] for row in rows})
        shown = [*rows, *(published_rows(families) if paper else [])]
        text = render(shown, format.value, width=_width() if out is None else None)
    if out is not None:
        write_text(out, text)
    else:
        typer.echo(text, nl=False)


def _width() -> int | None:
    """Columns of the terminal, or None where the output is no terminal."""
    import shutil
    import sys

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
