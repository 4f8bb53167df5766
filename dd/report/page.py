"""report.html: tables, samples, plots and provenance in one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dd.evaluation.figures import latency_figure, quality_figure, save_figure
from dd.evaluation.rows import Row
from dd.report.blocks import dirty_notes, floor_notes, make_blocks, missing_notes, published_rows
from dd.report.columns import SHORT, count, ratio, significant
from dd.report.table import html_table
from dd.report.tiles import Sheet, class_table, read_sheet
from dd.system.files import sha256_file
from dd.system.git import git

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
MEASURED = ("value", "quality_ratio", "diversity", "precision", "recall", "caption_accuracy")
SCRIPTED = (
    *("label", "metric", "latency_seconds", "seconds_per_image"),
    *MEASURED,
    *(f"{key}_error" for key in MEASURED),
)


@dataclass
class Section:
    """One experiment on the page."""

    name: str
    summary: list[str]
    table: Markup
    tiles: Markup | None = None
    grid: str | None = None
    classes: Markup | None = None
    quality: Markup | None = None
    latency: Markup | None = None
    curves: Markup | None = None
    params: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)


def render_page(root: Path, rows: Sequence[Row], paper: bool = True, others: Mapping[str, Sequence[Row]] = {}) -> str:
    """The whole page as text. others: rows of other revisions, by their names, to compare with."""
    names = dict.fromkeys(row["experiment"] for row in rows)
    sheets = {name: sheet for name in names if (sheet := read_sheet(root / "results" / name))}
    sections = [_section(root, name, rows, sheets) for name in names]
    families = sorted({row["family"] for row in rows if row["family"]})
    published = make_blocks(published_rows(families)) if paper and families else []
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, autoescape=True)
    script = _dense((HERE / "report.js").read_text(encoding="utf-8"))  # as it stands in the page, for its digest
    page = environment.get_template("report.html.j2").render(
        blocks=[Markup(html_table(block, SHORT)) for block in make_blocks(rows)],
        published=[Markup(html_table(block)) for block in published],
        notes=[*dirty_notes(rows), *floor_notes(rows), *missing_notes(rows)],
        sections=sections,
        sheets=Markup(
            "\n".join(sheet.style(_sheet(name), _data_uri(sheet.path) or "") for name, sheet in sheets.items())
        ),
        rows=Markup(_comparable(rows, others)),
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        provenance=_provenance(root, rows),
    )
    return _dense(page)


def _dense(text: str) -> str:
    """Without empty lines."""
    return re.sub(r"\n\s*\n+", "\n", text)


def _comparable(rows: Sequence[Row], others: Mapping[str, Sequence[Row]]) -> str:
    """What the page's script compares, as JSON that HTML can hold: rows by experiment and revision."""
    found = [
        {"set": row["experiment"] + (f" at {name}" if name else ""), **{key: row.get(key) for key in SCRIPTED}}
        for name, some in [(None, rows), *others.items()]
        for row in some
    ]
    return json.dumps(found).replace("<", "\\u003c")


def _sheet(name: str) -> str:
    """The CSS class of an experiment's tiles."""
    return f"sheet-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _section(root: Path, name: str, rows: Sequence[Row], sheets: Mapping[str, Sheet]) -> Section:
    folder = root / "results" / name
    mine = [row for row in rows if row["experiment"] == name]
    sheet = sheets.get(name)
    return Section(
        name,
        summary(mine),
        Markup("".join(html_table(block) for block in make_blocks(mine))),
        Markup(sheet.table(_sheet(name))) if sheet else None,
        None if sheet else _data_uri(folder / "samples.png"),
        Markup(class_table(mine)),
        _drawn(quality_figure(mine), f"{name}/quality"),
        _drawn(latency_figure(mine), f"{name}/latency"),
        _inline_svg(folder / "curves.svg"),
        _params(root, name),
        _facts(mine),
    )


def _drawn(figure: Figure | None, name: str) -> Markup | None:
    """A figure as SVG on the page."""
    if figure is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        (file,) = save_figure(figure, Path(scratch) / "figure", ("svg",))
        return _svg(file.read_text(encoding="utf-8"), name)


def summary(rows: Sequence[Row]) -> list[str]:
    """What one wants to know first, in sentences: what each number of student evaluations costs."""
    teacher = next((row for row in rows if row["sampler"] == "teacher"), None)
    sentences = []
    for row in (row for row in rows if row["sampler"] == "dd"):
        said = []
        if row.get("quality_ratio") is not None and teacher is not None:
            said.append(
                f"{row['metric']} {significant(row['value'])}, {ratio(row['quality_ratio'])} the teacher's "
                f"{significant(teacher['value'])}"
            )
        if teacher is not None and (speed := _speed(row)):
            said.append(f"{speed} than its {teacher['evaluations']} evaluations")
        if said:
            steps = row["evaluations"]
            sentences.append(f"{row['label']} ({steps} step{'s' * (steps != 1)}): {'; '.join(said)}.")
    return sentences


def _speed(row: Row) -> str:
    """How fast a student is beside its teacher, for one image and in batches, as far as it was measured."""
    kinds = (("latency_speedup", "for one image"), ("speedup", "in batches"))
    return ", ".join(f"{how} {_times(row[key])}" for key, how in kinds if row.get(key) is not None)


def _times(speed: float) -> str:
    """12.4 as `12.4× faster`, 0.383 as `2.61× slower`."""
    return f"{ratio(speed)} faster" if speed >= 1 else f"{ratio(1 / speed)} slower"


def _facts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    first = rows[0]
    student = next((row for row in rows if row.get("student_sha256")), None)
    facts: list[tuple[str, Any]] = [
        ("teacher", f"{first['teacher']}, SHA-256 {first['teacher_sha256']}"),
        (
            "student",
            f"SHA-256 {student['student_sha256']}, {count(student['parameters'])} parameters" if student else None,
        ),
        ("protocol", f"{first['protocol']}, {first['images']:,} images, seed {first['seed']}"),
        ("extractor", first.get("extractor_sha256") and f"SHA-256 {first['extractor_sha256']}"),
        ("reference", first.get("reference_sha256") and f"SHA-256 {first['reference_sha256']}"),
        ("timing", next((row["timing"] for row in rows if row.get("timing")), None)),
        ("processor", next((row["cpu"] for row in rows if row.get("cpu")), None)),
        (
            "settings of the samplers chosen on",
            next((row["selected_on"] for row in rows if row.get("selected_on")), None),
        ),
        ("git revision of the evaluation", first["revision"]),
        ("command", first["command"]),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _params(root: Path, name: str) -> str:
    try:
        params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
        return yaml.safe_dump(params["experiments"][name], sort_keys=False, default_flow_style=None, width=100)
    except (OSError, KeyError, TypeError, yaml.YAMLError):  # results of an experiment that has left params.yaml
        return ""


def _provenance(root: Path, rows: Sequence[Row]) -> list[tuple[str, str]]:
    facts = [("git revision of this page", git(root, "rev-parse", "HEAD") or "not in git")]
    for name in ("params.yaml", "dvc.lock"):
        if (root / name).is_file():
            facts.append((f"SHA-256 of {name}", sha256_file(root / name)))
    facts.append(("SHA-256 of the rows", hashlib.sha256(repr(list(rows)).encode()).hexdigest()))
    return facts


def _data_uri(path: Path) -> str | None:
    """A picture as a data URI."""
    kind = path.suffix.removeprefix(".")
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else None


def _inline_svg(path: Path) -> Markup | None:
    """Our own SVG without its XML prologue, its ids made unique on the page."""
    return _svg(path.read_text(encoding="utf-8"), "/".join(path.parts[-2:])) if path.is_file() else None


def _svg(text: str, name: str) -> Markup:
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    prefix = hashlib.sha256(name.encode()).hexdigest()[:6]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return Markup(
        re.sub(
            r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
        )
    )
