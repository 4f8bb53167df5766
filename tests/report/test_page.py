"""The command, the page and its figures; opened in a browser where there is one."""

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from dd.cli.report import report
from dd.evaluation import figures
from dd.report.collect import collect
from dd.report.page import render_page, summary
from dd.report.table import (
    render,
)
from stages import report as stage
from tests.helpers.report_rows import imagined_rows

APP = Typer()
APP.command()(report)


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
    assert (
        "1 evaluation: FD-toy 5.40, 1.89× the teacher's 2.86; 38.9× in batches the speed of its 64 evaluations."
        in unescape(text)
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
