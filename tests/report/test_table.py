"""The table: formats, marks, comparison; LaTeX compiled where the program is there."""

import csv
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dd.cli.main import app
from dd.errors import DDError
from dd.evaluation.rows import fill_ratios
from dd.report.blocks import make_blocks, published_rows
from dd.report.collect import collect
from dd.report.columns import parse_columns
from dd.report.table import frame, latex_text, render
from tests.helpers.paths import ROOT
from tests.helpers.report_rows import imagined_rows


def test_readme_and_report_show_the_committed_results(monkeypatch: pytest.MonkeyPatch):
    root = ROOT
    rows = collect(root)
    published = published_rows(sorted({row["family"] for row in rows}))
    assert (root / "report" / "table.md").read_text() == render([*rows, *published], "markdown")
    before, shown = (root / "README.md").read_text().split("<!-- results: begin -->")
    command = re.findall(r"`dd-cli (report [^`]+)`", before)[-1]  # README names the command that prints the table
    monkeypatch.setenv("DD_ROOT", str(root))
    printed = CliRunner().invoke(app, shlex.split(command)).stdout
    assert shown.split("<!-- results: end -->")[0].strip() == printed.strip()


def test_ratios_have_errors():
    """To first order, against a hundred thousand draws."""
    rows = imagined_rows()
    found = {row["label"]: row for row in rows}
    floor, teacher, student = (
        np.random.default_rng(i).normal(found[label]["value"], found[label]["value_error"], 100_000)
        for i, label in enumerate(("reconstruction", "teacher", "dd 0"))
    )
    assert found["dd 0"]["quality_ratio_error"] == pytest.approx((student / teacher).std(), rel=0.02)
    excess = (student - floor) / (teacher - floor)
    assert found["dd 0"]["excess_ratio_error"] == pytest.approx(excess.std(), rel=0.03)
    assert found["teacher"]["quality_ratio_error"] is None
    assert found["real"]["excess_ratio_error"] is None
    assert "| 1.89× ±0.04 |" in render(rows, "markdown")


def test_a_table_says_how_it_was_measured():
    rows = imagined_rows()
    said = "± is one standard error; protocol fd-toy; images 10,000; seed 1; revision 0000000"
    assert make_blocks(rows)[0].foot == said
    for kind in ("markdown", "table", "html"):
        assert said in render(rows, kind), kind
    assert "$\\pm$ is one standard error; protocol fd-toy" in render(rows, "latex")


def test_json_holds_every_row_unchanged():
    rows = imagined_rows()
    assert json.loads(render(rows, "json")) == {"rows": rows}


def test_csv_reads_back():
    found = list(csv.DictReader(io.StringIO(render(imagined_rows(), "csv"))))
    assert [row["label"] for row in found][:3] == ["real", "reconstruction", "teacher"]
    assert found[2]["evaluations"] == "64"
    assert found[0]["evaluations"] == ""  # not measured is empty, never 0
    assert float(found[3]["value"]) == 5.4


def test_markdown_is_one_table_per_experiment():
    text = render([*imagined_rows(), *imagined_rows("var-toy")], "markdown")
    assert text.count("| sampler |") == 2
    line = next(line for line in text.splitlines() if line.startswith("| dd+teacher"))
    assert "**3.60 ±0.06**" in line
    assert "| onestep\\* |" in text
    assert "- llamagen-toy, onestep*: no kid: imagined" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_terminal_table_fits_and_cuts_no_cell(width: int):
    rows = [*timed_rows(), *timed_rows("var-toy", 3)]
    text = render(rows, "table", width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    table = text.partition("var-toy")[0]
    for cell in ("dd+teacher 0,16 from 8", "onestep*", "1.89×"):  # the student's distance over the teacher's
        assert cell in table
    if width >= 80:
        for cell in ("1.89× ±0.04", "38.9×", "20.0×", "passes", "speed-up,", "batch 1", "batched"):
            assert cell in table
    assert ("more columns: --columns all" in text) == (width < 200)
    lines = [line for line in text.splitlines() if "──" in line]
    assert len(set(lines)) == 1  # both experiments show the same columns, equally wide


def test_columns_that_were_asked_for_are_never_cut():
    text = render(timed_rows(), "table", parse_columns("all"), width=60)
    assert "…" not in text
    for cell in ("0.180 ±0.010", "0.830", "100 ms", "20.0×"):
        assert cell in text


def timed_rows(experiment: str = "llamagen-toy", scale: float = 1.0) -> list[dict]:
    """With a latency of 100 ms for the teacher, 5 ms for the students, and more passes than evaluations."""
    rows = imagined_rows(experiment, scale)
    for row in rows[2:]:
        row["latency_seconds"] = 0.1 if row["sampler"] == "teacher" else 0.005
        row["passes"] = 3 * row["evaluations"]
    return fill_ratios(rows)


def test_the_five_columns_of_a_readme():
    text = render(timed_rows(), "markdown", parse_columns("short"))
    assert "| sampler | passes | of teacher | speed-up, batch 1 | speed-up, batched |" in text
    assert "| dd 0 | 3 | 1.89× ±0.04 | 20.0× | **38.9×** |" in text
    assert "| real | – |" in text


def test_a_csv_of_some_columns():
    found = list(csv.DictReader(io.StringIO(render(imagined_rows(), "csv", parse_columns("value,kid")))))
    assert list(found[0]) == ["label", "value", "kid"]


def test_terminal_table_has_every_row():
    text = render(imagined_rows(), "table")
    assert all(row["label"] in text for row in imagined_rows())
    assert "\x1b" not in text


def test_unknown_format():
    with pytest.raises(DDError, match="no format 'pdf'; there are table, markdown, csv, json, latex, html"):
        render(imagined_rows(), "pdf")


def test_latex_escapes_everything():
    assert latex_text("a_b & 5 % #1 {x} ~ ^ \\ 2× ±") == (
        r"a\_b \& 5 \% \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} 2$\times$ $\pm$"
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path: Path):
    rows = imagined_rows()
    rows[0]["label"] = "a_b & 5 % #1 {x} ~ ^ \\"
    tables = render([*timed_rows(), *rows, *published_rows()], "latex")
    (tmp_path / "t.tex").write_text(f"\\documentclass{{article}}\\begin{{document}}\n{tables}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, done.stdout  # no table is wider than the page
    assert (tmp_path / "t.pdf").stat().st_size > 10_000


def test_rows_as_a_pandas_frame():
    rows = imagined_rows()
    table = frame(rows, ["label", "evaluations", "value", "missing"])
    assert list(table.columns) == ["label", "evaluations", "value", "missing"]
    assert list(table["label"]) == [row["label"] for row in rows]
    steps = table[table["evaluations"] != ""]["evaluations"]
    assert all(isinstance(count, int) for count in steps)
    assert len(frame(rows).columns) == len({key for row in rows for key in row})
