"""The command, the page and its figures; opened in a browser where there is one."""

import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dd.report.collect import collect
from dd.report.page import render_page, summary
from tests.helpers.report_rows import imagined_rows


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
