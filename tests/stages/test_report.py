"""Stage report."""

from pathlib import Path

import pytest

from stages import report as stage


def test_stage_publishes_page_table_and_plot(imagined_results: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DD_ROOT", str(imagined_results))
    assert stage.main() == "wrote report/report.html and table.md: 8 rows"
    assert {p.name for p in (imagined_results / "report").iterdir()} == {
        "report.html",
        "table.md",
        "quality.png",
        "quality.svg",
    }
