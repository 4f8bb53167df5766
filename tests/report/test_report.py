"""The report: formats, marks, comparison, the page; LaTeX compiled and the page opened where the programs are there."""

import csv
import io
import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from dd.cli.report import report
from dd.errors import DDError
from dd.evaluation import figures
from dd.report.collect import collect, compare, render_comparison, rows_at
from dd.report.page import render_page, summary
from dd.report.table import COLUMN_LIST as COLUMNS
from dd.report.table import (
    best,
    count,
    latex_text,
    make_blocks,
    missing_notes,
    published_rows,
    render,
    seconds,
    significant,
)
from stages import report as stage
from tests.helpers.paths import ROOT
from tests.helpers.report_rows import imagined_rows, write_results

APP = Typer()
APP.command()(report)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_results(root, imagined_rows())
    (root / "params.yaml").write_text("experiments: {llamagen-toy: {teacher: {name: '<b>toy</b>'}}}")
    return root


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


# ------------------------------------------------------------------------------------------------- what is committed


def test_readme_and_report_show_the_committed_results():
    root = ROOT
    rows = collect(root)
    published = published_rows(sorted({row["family"] for row in rows}))
    assert (root / "report" / "table.md").read_text() == render([*rows, *published], "markdown")
    shown = (root / "README.md").read_text().split("<!-- results: begin -->")[1].split("<!-- results: end -->")[0]
    asked = collect(root, ["llamagen-fashion", "t2i-fashion", "var-fashion"])
    assert shown.strip() == render(asked, "markdown").strip()


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
        assert len({title for title in block.frame.columns if title.startswith("FID")}) == 1
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
    tables = render([*rows, *published_rows()], "latex")
    (tmp_path / "t.tex").write_text(f"\\documentclass{{article}}\\begin{{document}}\n{tables}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
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


# ------------------------------------------------------------------------------------------------- command and page


def test_command(results: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DD_ROOT", str(results))
    run = CliRunner().invoke
    assert json.loads(run(APP, ["--format", "json"]).stdout)["rows"][2]["sampler"] == "teacher"
    assert len(json.loads(run(APP, ["--format", "json", "--paper"]).stdout)["rows"]) > len(imagined_rows())
    out = tmp_path / "t.md"
    assert run(APP, ["llamagen-toy", "-f", "markdown", "-o", str(out)]).exit_code == 0
    assert out.read_text() == render(imagined_rows(), "markdown")
    assert run(APP, ["--format", "html"]).stdout.startswith("<!doctype html>")


class Page(HTMLParser):
    """Addresses that a browser would fetch, ids, and the texts of headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("img", "script", "link", "iframe"):
            self.fetched.append(given.get("src") or given.get("href", tag))
        if "id" in given:
            self.ids.append(given["id"])


def test_page_is_self_contained(results: Path):
    text = render_page(results, collect(results))
    page = Page(text)
    assert page.fetched
    assert all(address.startswith("data:image/png") for address in page.fetched)
    assert "<script" not in text
    assert not re.findall(r'(?:href|src)="https?:', re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    assert len(page.ids) == len(set(page.ids))
    assert "1 evaluation: FD-toy 5.40, 1.89× the teacher's 2.86; 38.9× faster than its 64 evaluations." in unescape(
        text
    )
    assert "&lt;b&gt;toy&lt;/b&gt;" in text  # params are shown, not run
    assert text.count("<svg") == 2
    assert "prefers-color-scheme: dark" in text
    for needed in ("a" * 64, "python -m stages.evaluate llamagen-toy", "SHA-256 of params.yaml"):
        assert needed in text


def test_page_without_figures_or_teacher(tmp_path: Path):
    rows = [row for row in imagined_rows() if row["sampler"] == "dd"]
    text = render_page(tmp_path, rows, paper=False)
    assert "<svg" not in text
    assert "Published numbers" not in text
    assert summary(rows) == []


def test_stage_publishes_page_table_and_plot(results: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DD_ROOT", str(results))
    assert stage.main() == "wrote report/report.html and table.md: 8 rows"
    assert {p.name for p in (results / "report").iterdir()} == {"report.html", "table.md", "quality.png", "quality.svg"}


def test_figures_are_the_same_bytes_each_time(tmp_path: Path):
    files = [figures.save_figure(figures.quality_figure(imagined_rows()), tmp_path / name) for name in ("a", "b")]
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_curves_of_dvclive_are_read(tmp_path: Path):
    file = tmp_path / "curves" / "plots" / "metrics" / "loss" / "cross_entropy.tsv"
    file.parent.mkdir(parents=True)
    file.write_text("step\tcross_entropy\n50\t5.5\n100\t4.25\n")
    assert figures.read_curves(tmp_path) == {"loss/cross_entropy": [(50, 5.5), (100, 4.25)]}
    assert figures.read_curves(tmp_path / "none") == {}


def test_quality_figure_without_any_value():
    rows = imagined_rows()
    for row in rows:
        row["value"] = None
    assert figures.quality_figure(rows).axes[0].texts[0].get_text() == "nothing measured"


CROWD = (
    ("teacher", "teacher", 49),
    ("dd", "dd 0", 1),
    ("dd", "dd 0,16", 2),
    ("dd", "dd 0,8,16", 3),
    ("dd+teacher", "dd+teacher 0,16 from 12", 6),
    ("dd+teacher", "dd+teacher 0,16 from 8", 10),
    ("skip", "skip-1", 49),
    ("onestep*", "onestep*", 1),
)


def crowd(experiment: str, value: float) -> list[dict]:
    """Eight samplers whose distances lie within a few per cent, above a floor that is as near."""
    keys = {"experiment": experiment, "metric": "FD-toy", "value_error": value / 100}
    rows = [
        {"sampler": s, "label": label, "evaluations": steps, "value": value * (1 + 0.01 * (i % 3)), **keys}
        for i, (s, label, steps) in enumerate(CROWD)
    ]
    floor = {"sampler": "reconstruction", "label": "reconstruction", "evaluations": None, "value": 0.98 * value}
    return [*rows, floor | keys]


def test_labels_of_close_points_can_all_be_read():
    """None lies on another one, on a marker of another point, or outside its panel."""
    figure = figures.quality_figure([*crowd("one", 0.5), *crowd("two", 7.0)])
    figure.draw_without_rendering()
    for axis in figure.axes:
        texts = [text for text in axis.texts if text.get_text()]
        assert {text.get_text() for text in texts} == {label for _, label, _ in CROWD} | {"tokenizer reconstructions"}
        boxes = [text.get_window_extent() for text in texts]
        assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
        assert all(axis.bbox.padded(1).contains(*corner) for box in boxes for corner in (box.min, box.max))
        markers = [axis.transData.transform((line.get_xdata()[0], line.get_ydata()[0])) for line in axis.lines[:8]]
        assert not [(box, marker) for box in boxes for marker in markers if box.contains(*marker)]
        assert len(axis.get_yticks()) >= 3


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


# What a browser makes of the page: sideways scroll of the whole, and the least contrast (WCAG 2) of texts and lines.
LOOK = """<!doctype html><iframe id=f src=inner.html width=%d height=900></iframe><script>
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
  .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
addEventListener('load', () => setTimeout(() => { const w = f.contentWindow, d = f.contentDocument;
  const e = d.documentElement, page = w.getComputedStyle(d.body).backgroundColor;
  const least = (names, key) => Math.min(...[...d.querySelectorAll(names)].map(n => {
    const own = w.getComputedStyle(n).backgroundColor;
    return ratio(w.getComputedStyle(n)[key], own.startsWith('rgba(0, 0, 0, 0') ? page : own); }));
  document.body.dataset.overflow = e.scrollWidth - e.clientWidth;
  document.body.dataset.page = page;
  document.body.dataset.text = least('h1, h2, h3, p, li, th, td, small, dt, dd, a, figcaption, summary', 'color');
  document.body.dataset.drawn = least('.plot g[id*=text] > g', 'fill');
}, 300))</script>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs headless Chromium")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_page_in_a_browser(results: Path, tmp_path: Path, width: int, scheme: str):
    """On a phone and on a desk the whole page does not scroll sideways, and everything can be read, light or dark."""
    text = render_page(results, collect(results))
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    (tmp_path / "inner.html").write_text(text)
    (tmp_path / "outer.html").write_text(LOOK % width)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--allow-file-access-from-files"]
    flags.append(f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}")
    command = [str(CHROMIUM), *flags, "--virtual-time-budget=5000", "--dump-dom", str(tmp_path / "outer.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', done.stdout))
    assert found, done.stdout[-500:] + done.stderr[-500:]
    assert found["overflow"] == "0"
    assert found["page"] == ("rgb(22, 23, 26)" if scheme == "dark" else "rgb(255, 255, 255)")
    assert 4.5 <= float(found["text"]) <= 21
    assert 4.5 <= float(found["drawn"]) <= 21
