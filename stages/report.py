"""Stage report: `python -m stages.report` -> report/: report.html, table.md and plots."""

from __future__ import annotations

import argparse
import shutil

from dd.config import project_root
from dd.evaluation.figures import quality_figure, save_figure
from dd.report.blocks import published_rows
from dd.report.collect import collect
from dd.report.geometry import geometry_figure, geometry_rows
from dd.report.page import render_page
from dd.report.table import render
from dd.system.entry import run_stage
from dd.system.files import publish, write_text


def main() -> str:
    """Make the report from all rows. Returns what was done, in one line."""
    root = project_root()
    rows = collect(root)
    scratch = root / "work" / "report"
    shutil.rmtree(scratch, ignore_errors=True)
    published = published_rows(sorted({row["family"] for row in rows}))
    write_text(scratch / "report.html", render_page(root, rows))
    write_text(scratch / "table.md", render([*rows, *published], "markdown"))
    save_figure(quality_figure(rows), scratch / "quality")
    if geometry_rows(rows):
        save_figure(geometry_figure(rows), scratch / "geometry")
    publish(scratch, root / "report")
    return f"wrote report/report.html and table.md: {len(rows)} rows"


if __name__ == "__main__":
    run_stage(lambda arguments: main(), argparse.ArgumentParser(description=__doc__))
