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
from dd.report.blocks import best, dirty_notes, make_blocks, missing_notes, published_rows
from dd.report.collect import collect, compare, render_comparison, rows_at
from dd.report.columns import ALL as COLUMNS
from dd.report.columns import SHORT, count, parse_columns, seconds, significant
from dd.report.table import frame, latex_text, render
from tests.helpers.paths import ROOT
from tests.helpers.report_rows import imagined_rows, write_results


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


# ------------------------------------------------------------------------------------------------- what is committed


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


# Experiments whose committed rows are still from a tree with changes. Only ever to be shortened.
STILL_DIRTY = {"llamagen-fashion-long", "t2i-fashion", "var-fashion", "var-fashion-long"}


def test_committed_results_come_from_commits():
    for file in sorted((ROOT / "results").glob("*/rows.json")):
        name = file.parent.name
        if name not in STILL_DIRTY:
            collect(ROOT, [name], committed=True)


def test_a_row_from_a_tree_with_changes_is_refused(tmp_path: Path):
    rows = imagined_rows()
    write_results(tmp_path, rows, drawn=False)
    assert len(collect(tmp_path, committed=True)) == len(rows)
    for revision in ("0" * 40 + "-dirty", None):
        rows[2]["revision"] = revision
        write_results(tmp_path, rows, drawn=False)
        with pytest.raises(
            DDError, match=rf"measured from a commit, found revision {revision} in llamagen-toy: commit"
        ):
            collect(tmp_path, committed=True)
        assert len(collect(tmp_path)) == len(rows)
    rows[2]["revision"] = "0" * 40 + "-dirty"
    assert dirty_notes(rows) == ["llamagen-toy: measured from a working tree that differed from its commit"]


# ---------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (23.33, "23.3"), (1234.5, "1234"), (0.01234, "0.0123"), (5.0, "5.00"), (-1.5, "-1.50")],
)
def test_significant_digits(value, text):
    assert significant(value) == text


def test_units():
    assert [seconds(0.0027), seconds(0.105), seconds(12.34)] == ["2.70 ms", "105 ms", "12.3 s"]
    assert [count(950), count(1_650_000), count(2.01e9)] == ["950", "1.65M", "2.01B"]


# ---------------------------------------------------------------------------------------------------------- formats


def test_best_values_are_marked_among_rivals_only():
    rows = imagined_rows()
    by_key = {column.key: column for column in COLUMNS}
    labels = lambda key: {rows[i]["label"] for i in best(rows, by_key[key])}  # noqa: E731
    assert labels("value") == {"dd+teacher 0,16 from 8"}  # neither the floors nor the teacher
    assert labels("precision") == {"dd 0"}
    assert labels("recall") == set()  # all alike
    assert labels("parameters") == set()
    assert best(published_rows(), by_key["value"])


def test_as_many_evaluations_as_the_teacher_win_nothing():
    rows = imagined_rows()
    rows[6] |= {"label": "skip-1", "evaluations": 64, "value": 2.0}
    column = next(column for column in COLUMNS if column.key == "value")
    assert {rows[i]["label"] for i in best(rows, column)} == {"dd+teacher 0,16 from 8"}


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


def test_what_all_rows_lack_is_said_once():
    rows = [{**row, "missing": {"inception_score": "no classes"}} for row in imagined_rows()]
    rows[1]["missing"] = {"inception_score": "no classes", "kid": "too few"}
    notes = missing_notes(rows)
    assert notes == ["llamagen-toy: no inception_score: no classes", "llamagen-toy, reconstruction: no kid: too few"]


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
    assert "| dd 0 | 3 | 1.89× ±0.04 | 20.0× | 38.9× |" in text
    assert "| real | – |" in text


@pytest.mark.parametrize(
    ("text", "keys"),
    [("short", SHORT), ("all", tuple(c.key for c in COLUMNS)), ("kid, value,kid", ("label", "kid", "value"))],
)
def test_columns_by_name(text: str, keys: tuple[str, ...]):
    assert parse_columns(text) == keys


def test_an_unknown_column_is_refused_with_the_nearest():
    with pytest.raises(DDError, match="--columns: no column 'latency_speed'; did you mean latency_speedup"):
        parse_columns("latency_speed")
    with pytest.raises(DDError, match="no column 'xyz'; there are all, short, label"):
        parse_columns("xyz")


def test_a_csv_of_some_columns():
    found = list(csv.DictReader(io.StringIO(render(imagined_rows(), "csv", parse_columns("value,kid")))))
    assert list(found[0]) == ["label", "value", "kid"]


def test_terminal_table_has_every_row():
    text = render(imagined_rows(), "table")
    assert all(row["label"] in text for row in imagined_rows())
    assert "\x1b" not in text


def test_published_numbers_stand_apart_with_their_source():
    blocks = make_blocks([*imagined_rows(), *published_rows(["llamagen"])])
    assert [block.source is None for block in blocks] == [True] + [False] * (len(blocks) - 1)
    assert blocks[0].title == "Measured here: llamagen-toy"
    assert all(block.title.startswith("Published (not measured here)") for block in blocks[1:])
    for block in blocks[1:]:  # never two protocols in one column
        assert len({title for title in block.titles if title.startswith("FID")}) == 1
    assert {row["metric"] for row in published_rows()} == {"FID", "FID-dd", "FID-t2i"}
    assert all(row["source"] for row in published_rows())


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


# ------------------------------------------------------------------------------------------------------- comparison


def test_comparison_with_a_revision(tmp_path: Path):
    write_results(tmp_path, imagined_rows(scale=1.2), drawn=False)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "results/llamagen-toy/rows.json")
    git(tmp_path, "commit", "-qm", "before")
    rows = imagined_rows()
    rows[3]["precision"], rows[3]["precision_error"] = 0.85, 0.01
    lines = compare(rows, rows_at(tmp_path, "HEAD"), "HEAD")
    found = {(sampler, metric): rest for _, sampler, metric, *rest in lines[1:]}
    assert found["dd 0", "FD-toy"] == ["6.48", "5.40", "-1.08", "yes"]
    assert found["real", "FD-toy"] == ["0.216", "0.180", "-0.0360", "yes"]
    assert found["dd 0", "precision"] == ["0.830", "0.850", "+0.0200", ""]  # no error, no verdict
    assert found["dd 0", "kid"][3] == "no"
    assert lines[0][3] == "HEAD"
    assert render_comparison(lines, "csv").splitlines()[0].startswith("experiment,sampler,metric,HEAD,now")
    assert render_comparison(lines, "table").count("\n") == len(lines) + 1
    first = json.loads(render_comparison(lines, "json"))[0]
    assert first == {
        "experiment": "llamagen-toy",
        "sampler": "real",
        "metric": "FD-toy",
        "before": "0.216",
        "now": "0.180",
        "change": "-0.0360",
        "beyond_2_errors": "yes",
    }
    with pytest.raises(DDError, match="has the formats table, markdown, csv and json, got latex"):
        render_comparison(lines, "latex")


def test_comparison_with_a_dvc_experiment(tmp_path: Path):
    write_results(tmp_path, imagined_rows(scale=1.2), drawn=False)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "results/llamagen-toy/rows.json")
    git(tmp_path, "commit", "-qm", "an experiment")
    git(tmp_path, "update-ref", "refs/exps/00/1234/lr-5e-4", "HEAD")
    git(tmp_path, "update-ref", "-d", "HEAD")
    assert rows_at(tmp_path, "lr-5e-4") == imagined_rows(scale=1.2)


def test_comparison_of_other_metrics_and_new_rows():
    old, new = imagined_rows(), imagined_rows()
    new[3]["metric"] = "FD-toy, N=2k"
    new[4]["label"] = "dd 0,8"
    lines = compare(new, old, "v1")
    assert ["llamagen-toy", "dd 0", "FD-toy, N=2k", "was FD-toy", "5.40", "", "not comparable"] in lines
    assert ["llamagen-toy", "dd 0,8", "", "–", "new", "", ""] in lines
    assert ["llamagen-toy", "dd 0,16", "", "was there", "–", "", ""] in lines


def test_comparison_needs_a_revision_with_results(tmp_path: Path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "empty", "--allow-empty")
    with pytest.raises(DDError, match=r"git cannot show that revision \(.*nothing"):
        rows_at(tmp_path, "nothing")
    with pytest.raises(DDError, match="revision HEAD holds no results"):
        rows_at(tmp_path, "HEAD")


def test_missing_and_damaged_results(tmp_path: Path, results: Path):
    with pytest.raises(DDError, match=r"expected results/<experiment>/rows.json, found none: run `dvc repro`"):
        collect(tmp_path)
    with pytest.raises(DDError, match="no results of vra; there are llamagen-toy"):
        collect(results, ["vra"])
    (tmp_path / "results" / "x").mkdir(parents=True)
    (tmp_path / "results" / "x" / "rows.json").write_text('{"rows": [')
    with pytest.raises(DDError, match=r"rows\.json is damaged .*: run the experiment's stage evaluate again"):
        collect(tmp_path)


def test_rows_as_a_pandas_frame():
    rows = imagined_rows()
    table = frame(rows, ["label", "evaluations", "value", "missing"])
    assert list(table.columns) == ["label", "evaluations", "value", "missing"]
    assert list(table["label"]) == [row["label"] for row in rows]
    steps = table[table["evaluations"] != ""]["evaluations"]
    assert all(isinstance(count, int) for count in steps)
    assert len(frame(rows).columns) == len({key for row in rows for key in row})
