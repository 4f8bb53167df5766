"""The command, the page and its figures; opened in a browser where there is one."""

import base64
import hashlib
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dd.report.collect import collect
from dd.report.page import render_page, summary
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.report_rows import imagined_rows, tiled


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


def test_page_is_self_contained(imagined_results: Path):
    text = render_page(imagined_results, collect(imagined_results))
    page = Page(text)
    assert page.fetched
    assert all(address == "script" or address.startswith("data:image/png") for address in page.fetched)
    own = re.search(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(own[1].encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert policy in unescape(text)
    assert not re.findall(r'(?:href|src)="https?:', re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    assert len(page.ids) == len(set(page.ids))
    assert (
        "dd 0 (1 step): FD-toy 5.40, 1.89× the teacher's 2.86; in batches 38.9× faster than its 64 evaluations."
        in unescape(text)
    )
    assert "&lt;b&gt;toy&lt;/b&gt;" in text  # params are shown, not run
    assert text.count("<svg") == 3
    assert "prefers-color-scheme: dark" in text
    for needed in ("a" * 64, "python -m stages.evaluate llamagen-toy", "SHA-256 of params.yaml"):
        assert needed in text


def test_the_page_does_not_depend_on_the_folder(imagined_results: Path, tmp_path: Path):
    copy = tmp_path / "another clone"
    shutil.copytree(imagined_results, copy)
    rows = collect(imagined_results)
    assert render_page(copy, rows) == render_page(imagined_results, rows)


def test_page_without_figures_or_teacher(tmp_path: Path):
    rows = [row for row in imagined_rows() if row["sampler"] == "dd"]
    text = render_page(tmp_path, rows, paper=False)
    assert "Published numbers" not in text
    assert summary(rows) == []


def test_what_is_slower_is_called_so_and_samplers_are_named():
    rows = imagined_rows()
    rows[3] |= {"speedup": 0.383, "latency_speedup": 12.4, "label": "dd 0 noise 1.1"}
    first = summary(rows)[0]
    assert first.startswith("dd 0 noise 1.1 (1 step): FD-toy 5.40, ")
    assert first.endswith("; for one image 12.4× faster, in batches 2.61× slower than its 64 evaluations.")


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
def test_what_a_reader_does_with_the_page(tmp_path: Path):
    """Sorts, chooses columns, looks at a class, compares two experiments, at phone width; nothing is fetched."""
    root = tiled(tmp_path / "project")
    before = [row | {"value": (row["value"] or 0) + 1} for row in imagined_rows()]
    (tmp_path / "page.html").write_text(render_page(root, collect(root), others={"v1": before}))
    with Browser(tmp_path / "home", 366, 800) as browser:
        browser.open((tmp_path / "page.html").as_uri())
        table = "document.querySelector('#results table')"
        order = f"[...{table}.tBodies[0].rows].map(row => row.cells[0].textContent)"
        browser.run(f"{table}.querySelector('th[data-key=speedup] button').click()")
        assert browser.run(order)[0] == "teacher"
        browser.run(f"{table}.querySelector('th[data-key=speedup] button').click()")
        assert browser.run(order)[0] == "onestep*"
        assert browser.run(order)[-2:] == ["real", "reconstruction"]  # not measured: last both ways
        cell = f"getComputedStyle({table}.querySelector('td[data-key=diversity]')).display"
        assert browser.run(cell) == "none"
        tick = "[...document.querySelectorAll('.chooser label')].find(one => one.textContent.trim() === 'diversity')"
        browser.run(f"{tick}.querySelector('input').click()")
        assert browser.run(cell) == "table-cell"
        choice = "document.querySelector('#llamagen-toy figure select')"
        assert browser.run("document.querySelectorAll('.tiles .tile').length") == 12
        browser.run(f"{choice}.value = 1; {choice}.onchange()")
        assert browser.run("document.querySelectorAll('.tiles .tile').length") == 18
        sets = "[...document.querySelectorAll('#compare select')[2].options].map(one => one.value)"
        assert browser.run(sets) == ["llamagen-toy", "other", "llamagen-toy at v1"]
        browser.run(
            "(s => { s.value = 'llamagen-toy at v1'; s.onchange(); })(document.querySelectorAll('#compare select')[2])"
        )
        lines = "[...document.querySelector('#compare table').tBodies[0].rows]"
        row = f"{lines}.find(row => row.cells[0].textContent === 'dd 0')"
        assert browser.run(f"[...{row}.cells].map(cell => cell.textContent)") == ["dd 0", "5.4", "6.4", "+1", "yes"]
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        name = f"{table}.tBodies[0].rows[0].cells[0].getBoundingClientRect().width"
        assert browser.run(name) <= 366 / 3 + 1
        assert {host for host in browser.hosts() if host} == set()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs headless Chromium")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_page_in_a_browser(imagined_results: Path, tmp_path: Path, width: int, scheme: str):
    """On a phone and on a desk the whole page does not scroll sideways, and everything can be read, light or dark."""
    text = render_page(imagined_results, collect(imagined_results))
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
