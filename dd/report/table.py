"""The results table: one pandas frame, rendered as a terminal table, Markdown, CSV, JSON, LaTeX or HTML."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from dd.errors import DDError
from dd.evaluation.rows import COLUMNS, FLOORS, Row

Format = Literal["table", "markdown", "csv", "json", "latex", "html"]
FORMATS: tuple[str, ...] = ("table", "markdown", "csv", "json", "latex", "html")
PUBLISHED = Path(__file__).with_name("published.json")
TITLES = {
    "measured": "Measured here",
    "released": "Released students, measured here",
    "paper": "Published (not measured here)",
}
ABSENT = "–"


@dataclass(frozen=True)
class Column:
    """A column of the table. better: which end of the scale is marked as best, if any."""

    key: str
    title: str
    show: Callable[[Any], str]
    better: Literal["low", "high"] | None = None


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and without exponent: 0.0123, 6.19, 1230."""
    if value == 0:
        return "0"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:.{decimals}f}"


def seconds(value: float) -> str:
    """A duration per image: 105 ms, 1.20 s."""
    return f"{significant(value * 1000)} ms" if value < 1 else f"{significant(value)} s"


def count(value: float) -> str:
    """1,650,000 as 1.65M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{significant(value / size)}{unit}"
    return str(int(value))


def ratio(value: float) -> str:
    """2.17×"""
    return f"{significant(value)}×"


COLUMN_LIST = (
    Column("label", "sampler", str),
    Column("evaluations", "steps", lambda v: str(int(v))),
    Column("passes", "passes", lambda v: str(int(v))),
    Column("value", "distance", significant, "low"),
    Column("quality_ratio", "of teacher", ratio, "low"),
    Column("excess_ratio", "excess", ratio, "low"),
    Column("kid", "KID", lambda v: f"{v:.4f}", "low"),
    Column("inception_score", "IS", significant, "high"),
    Column("precision", "prec.", lambda v: f"{v:.3f}", "high"),
    Column("recall", "recall", lambda v: f"{v:.3f}", "high"),
    Column("diversity", "diversity", lambda v: f"{v:.3f}", "high"),
    Column("paired_distance", "paired", lambda v: f"{v:.3f}", "low"),
    Column("caption_accuracy", "caption acc.", lambda v: f"{v:.3f}", "high"),
    Column("parameters", "params", count),
    Column("seconds_per_image", "per image", seconds, "low"),
    Column("speedup", "speed-up", ratio, "high"),
)


def published_rows(families: Sequence[str] | None = None, path: Path = PUBLISHED) -> list[Row]:
    """The authors' numbers, as rows of block `paper`, each with its source."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    empty = dict.fromkeys(COLUMNS)
    return [
        {**empty, **row, "block": "paper", "experiment": f"{row['teacher']}, {row['metric']}"}
        for row in rows
        if families is None or row["family"] in families
    ]


def best(rows: Sequence[Row], column: Column) -> set[int]:
    """Indices of the rows that hold the best value of a column among the few-step samplers of their experiment.

    Floors, teachers and samplers that take as many evaluations as their teacher do not compete; neither does a sampler
    without rivals, nor a value under another metric.
    """
    if column.better is None:
        return set()
    marked: set[int] = set()
    for key in {_contest(row) for row in rows}:
        rivals = [
            (row[column.key], i)
            for i, row in enumerate(rows)
            if _contest(row) == key and _competes(row, rows) and row.get(column.key) is not None
        ]
        if len({value for value, _ in rivals}) > 1:
            top = min(rivals)[0] if column.better == "low" else max(rivals)[0]
            marked |= {i for value, i in rivals if value == top}
    return marked


def _contest(row: Row) -> tuple[Any, ...]:
    return row["block"], row["experiment"], row["metric"]


def _competes(row: Row, rows: Sequence[Row]) -> bool:
    if row["sampler"] in (*FLOORS, "teacher"):
        return False
    teachers = [r["evaluations"] for r in rows if r["sampler"] == "teacher" and _contest(r) == _contest(row)]
    known = [steps for steps in teachers if steps is not None]
    return not known or row["evaluations"] is None or row["evaluations"] < max(known)


@dataclass(frozen=True)
class Block:
    """One table: the rows of one experiment in one block, as text, with the cells to be marked.

    source: of published numbers. about: how measured ones were taken.
    """

    title: str
    frame: pd.DataFrame
    bold: pd.DataFrame
    source: str | None = None
    about: str | None = None

    @property
    def foot(self) -> str | None:
        """The line below the table."""
        return f"Source: {self.source}" if self.source else self.about


def make_blocks(rows: Sequence[Row]) -> list[Block]:
    """Measured, released and published rows in separate blocks, one table per experiment; empty columns left out."""
    marks = {column.key: best(rows, column) for column in COLUMN_LIST}
    blocks = []
    order = {name: i for i, name in enumerate(TITLES)}
    groups = dict.fromkeys((row["block"] or "measured", row["experiment"]) for row in rows)
    for block, experiment in sorted(groups, key=lambda group: order.get(group[0], len(order))):
        chosen = [
            i for i, row in enumerate(rows) if (row["block"] or "measured", row["experiment"]) == (block, experiment)
        ]
        blocks.append(_block(f"{TITLES.get(block, block)}: {experiment}", rows, chosen, marks))
    return blocks


def _block(title: str, rows: Sequence[Row], chosen: list[int], marks: dict[str, set[int]]) -> Block:
    columns = [c for c in COLUMN_LIST if any(rows[i].get(c.key) is not None for i in chosen)]
    metrics = list(dict.fromkeys(rows[i]["metric"] for i in chosen if rows[i]["metric"]))
    titles = [metrics[0] if c.key == "value" and len(metrics) == 1 else c.title for c in columns]
    cells = [[_cell(rows[i], c) for c in columns] for i in chosen]
    bold = [[i in marks[c.key] for c in columns] for i in chosen]
    sources = list(dict.fromkeys(rows[i]["source"] for i in chosen if rows[i].get("source")))
    about = None if sources else _about([rows[i] for i in chosen])
    frames = pd.DataFrame(cells, columns=titles), pd.DataFrame(bold, columns=titles)
    return Block(title, *frames, "; ".join(sources) or None, about)


def _about(rows: Sequence[Row]) -> str | None:
    """Protocol, number of images, seed, revision and timing of measured rows, each named once."""

    def each(key: str, show: Callable[[Any], str]) -> str:
        return " or ".join(dict.fromkeys(show(row[key]) for row in rows if row.get(key) is not None))

    facts = {
        "protocol": each("protocol", str),
        "images": each("images", lambda n: f"{n:,}"),
        "seed": each("seed", str),
        "revision": each("revision", lambda sha: str(sha)[:7] + ("-dirty" if str(sha).endswith("-dirty") else "")),
        "timing": each("timing", str),
    }
    said = "; ".join(f"{name} {value}" for name, value in facts.items() if value)
    return f"± is one standard error; {said}" if said else None


def _cell(row: Row, column: Column) -> str:
    value = row.get(column.key)
    if value is None:
        return ABSENT
    text = column.show(value)
    error = row.get(f"{column.key}_error")
    if error is None:
        return text
    decimals = sum(letter.isdigit() for letter in text.partition(".")[2])
    return f"{text} ±{error:.{decimals}f}" if round(error, decimals) > 0 else text


def missing_notes(rows: Sequence[Row]) -> list[str]:
    """What was not measured and why, and what should be known about a row; once for all rows that share it."""
    labels: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        reasons: dict[str, list[str]] = {}
        for metric, reason in (row.get("missing") or {}).items():
            reasons.setdefault(reason, []).append(metric)
        said = [f"no {', '.join(metrics)}: {reason}" for reason, metrics in reasons.items()]
        for text in [*said, *(row.get("notes") or [])]:
            labels.setdefault((row["experiment"], text), []).append(row["label"])
    sizes = Counter(row["experiment"] for row in rows)
    return [
        f"{name}: {text}" if len(found) == sizes[name] > 1 else f"{name}, {', '.join(found)}: {text}"
        for (name, text), found in labels.items()
    ]


# ------------------------------------------------------------------------------------------------------- rendering


def render(rows: Sequence[Row], kind: str, width: int | None = None) -> str:
    """The table as text of one of `FORMATS` (html here is the tables alone, without the page around them)."""
    if kind not in FORMATS:
        raise DDError(f"no format '{kind}'; there are {', '.join(FORMATS)}")
    if kind == "json":
        return json.dumps({"rows": list(rows)}, indent=1) + "\n"
    if kind == "csv":
        return _csv(rows)
    parts = {"table": lambda b: _rich(b, width), "markdown": _markdown, "latex": _latex, "html": html_table}
    blocks = "\n".join(parts[kind](block) for block in make_blocks(rows))
    notes = missing_notes(rows)
    if not notes or kind == "latex":
        return blocks
    if kind == "html":
        return blocks + f'<ul class="notes">{"".join(f"<li>{escape(n)}</li>" for n in notes)}</ul>\n'
    return blocks + "\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def _csv(rows: Sequence[Row]) -> str:
    frame = pd.DataFrame(list(rows)).convert_dtypes()  # counts beside nulls stay whole numbers
    for name in ("missing", "notes"):
        if name in frame:
            frame[name] = [json.dumps(value) if value else "" for value in frame[name]]
    out = io.StringIO()
    frame.to_csv(out, index=False)
    return out.getvalue()


def _rich(block: Block, width: int | None) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=block.title, title_justify="left", caption=block.foot, caption_justify="left")
    for i, title in enumerate(block.frame.columns):
        table.add_column(title, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for cells, bold in zip(block.frame.to_numpy(), block.bold.to_numpy(), strict=True):
        table.add_row(*(Text(cell, style="bold green" if b else "") for cell, b in zip(cells, bold, strict=True)))
    console = Console(file=io.StringIO(), width=width or 160, force_terminal=width is not None)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def _markdown(block: Block) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = ["---"] + ["---:"] * (len(block.frame.columns) - 1)
    lines = [f"**{block.title}**", "", line(list(block.frame.columns)), line(rule)]
    for cells, bold in zip(block.frame.to_numpy(), block.bold.to_numpy(), strict=True):
        lines.append(line([f"**{c}**" if b else c.replace("*", "\\*") for c, b in zip(cells, bold, strict=True)]))
    if block.foot:
        lines += ["", block.foot]
    return "\n".join(lines) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    ABSENT: "--",
}


def latex_text(text: str) -> str:
    """Text with everything escaped that LaTeX would read as a command."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex(block: Block) -> str:
    """A `table` environment in plain LaTeX, without packages."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    lines = [r"\begin{table}", r"\centering\small", rf"\caption{{{latex_text(block.title)}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(block.frame.columns) - 1)}}}", r"\hline"]
    lines += [line([latex_text(title) for title in block.frame.columns]), r"\hline"]
    for cells, bold in zip(block.frame.to_numpy(), block.bold.to_numpy(), strict=True):
        escaped = [rf"\textbf{{{latex_text(c)}}}" if b else latex_text(c) for c, b in zip(cells, bold, strict=True)]
        lines.append(line(escaped))
    lines += [r"\hline", r"\end{tabular}"]
    if block.foot:
        lines.append(rf"\par\footnotesize {latex_text(block.foot)}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def html_table(block: Block) -> str:
    """A table that scrolls sideways on a narrow screen."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in block.frame.columns)
    body = []
    for cells, bold in zip(block.frame.to_numpy(), block.bold.to_numpy(), strict=True):
        tags = [
            f"<{tag}{' class=best' if b else ''}>{_two_lines(c)}</{tag}>"
            for tag, c, b in zip(["th", *["td"] * (len(cells) - 1)], cells, bold, strict=True)
        ]
        body.append(f"<tr>{''.join(tags)}</tr>")
    foot = f'<p class="source">{escape(block.foot)}</p>' if block.foot else ""
    return (
        f'<h3>{escape(block.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>{foot}\n"
    )


def _two_lines(cell: str) -> str:
    """The error below its value: narrow columns."""
    value, _, error = escape(cell).partition(" ±")
    return f"{value}<small> ±{error}</small>" if error else value
