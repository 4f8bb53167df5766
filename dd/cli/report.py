"""`dd-cli report`: the results table in any format, and the page."""

from __future__ import annotations

import os
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
    experiments: Annotated[list[str] | None, typer.Argument(help="Experiments to show; default: all.")] = None,
    format: Annotated[
        Format, typer.Option("--format", "-f", help="Output format; html is the whole page.")
    ] = Format.table,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS",
            help="all, short (five columns), or comma-separated keys of --format json; default: what fits.",
        ),
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Add the published numbers, in separate tables.")] = False,
    compare: Annotated[
        str | None, typer.Option(metavar="REV", help="Show the difference to another git revision or DVC experiment.")
    ] = None,
    committed: Annotated[
        bool, typer.Option("--committed", help="Refuse rows that were measured from a tree with uncommitted changes.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to a file instead of the screen.")] = None,
) -> None:
    """Show the results of all experiments: measured, released and published numbers in separate tables."""
    from dd.config import project_root
    from dd.report.collect import collect, render_comparison, rows_at
    from dd.report.collect import compare as difference
    from dd.report.columns import parse_columns
    from dd.system.files import write_text

    chosen = None if columns is None else parse_columns(columns)
    root = project_root()
    rows = collect(root, experiments or [], committed)
    if format is Format.html:
        from dd.report.page import render_page

        others = {} if compare is None else {compare: rows_at(root, compare, experiments or [])}
        text = render_page(root, rows, paper, others)
    elif compare is not None:
        text = render_comparison(difference(rows, rows_at(root, compare, experiments or []), compare), format.value)
    else:
        from dd.report.blocks import published_rows
        from dd.report.table import render

        families = sorted({row["family"] for row in rows})
        shown = [*rows, *(published_rows(families) if paper else [])]
        text = render(shown, format.value, chosen, *_terminal(out))
    if out is not None:
        write_text(out, text)
    else:
        typer.echo(text, nl=False)


def _terminal(out: Path | None) -> tuple[int, bool]:
    """Letters in a line, and whether to colour: of the terminal, else $COLUMNS or 100, without colour."""
    import shutil
    import sys

    on_screen = out is None and sys.stdout.isatty()
    return shutil.get_terminal_size((100, 24)).columns, on_screen and not os.environ.get("NO_COLOR")
