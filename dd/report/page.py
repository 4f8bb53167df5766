"""report.html: tables, samples, plots and provenance in one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dd.evaluation.rows import Row
from dd.report.blocks import dirty_notes, make_blocks, missing_notes, published_rows
from dd.report.columns import SHORT, count, ratio, significant
from dd.report.table import html_table
from dd.system.files import sha256_file
from dd.system.git import git

HERE = Path(__file__).parent


@dataclass
class Section:
    """One experiment on the page."""

    name: str
    summary: list[str]
    table: Markup
    grid: str | None = None
    quality: Markup | None = None
    curves: Markup | None = None
    params: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)


def render_page(root: Path, rows: Sequence[Row], paper: bool = True) -> str:
    """The whole page as text."""
    sections = [_section(root, name, rows) for name in dict.fromkeys(row["experiment"] for row in rows)]
    families = sorted({row["family"] for row in rows if row["family"]})
    published = make_blocks(published_rows(families)) if paper and families else []
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, autoescape=True)
    page = environment.get_template("report.html.j2").render(
        blocks=[Markup(html_table(block)) for block in make_blocks(rows, SHORT)],
        published=[Markup(html_table(block)) for block in published],
        notes=[*dirty_notes(rows), *missing_notes(rows)],
        sections=sections,
        provenance=_provenance(root, rows),
    )
    return re.sub(r"\n\s*\n+", "\n", page)


def _section(root: Path, name: str, rows: Sequence[Row]) -> Section:
    folder = root / "results" / name
    mine = [row for row in rows if row["experiment"] == name]
    return Section(
        name,
        summary(mine),
        Markup("".join(html_table(block) for block in make_blocks(mine))),
        _data_uri(folder / "samples.png"),
        _inline_svg(folder / "quality.svg"),
        _inline_svg(folder / "curves.svg"),
        _params(root, name),
        _facts(mine),
    )


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
            said.append(f"{speed} of its {teacher['evaluations']} evaluations")
        if said:
            steps = row["evaluations"]
            sentences.append(f"{steps} evaluation{'s' if steps != 1 else ''}: {'; '.join(said)}.")
    return sentences


def _speed(row: Row) -> str:
    """How fast a student is beside its teacher, for one image and in batches, as far as it was measured."""
    kinds = (("latency_speedup", "for one image"), ("speedup", "in batches"))
    known = [f"{ratio(row[key])} {how}" for key, how in kinds if row.get(key) is not None]
    return f"{' and '.join(known)} the speed" if known else ""


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
    """A PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else None


def _inline_svg(path: Path) -> Markup | None:
    """Our own SVG without its XML prologue, its ids made unique on the page."""
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    prefix = hashlib.sha256(str(path).encode()).hexdigest()[:6]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return Markup(
        re.sub(
            r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
        )
    )
