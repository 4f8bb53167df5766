"""Rows as tables of text: one block per experiment, its cells, the marks of the best values, the line below."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd.evaluation.rows import COLUMNS, FLOORS, Row
from dd.report.columns import ALL, KEYS, Column, significant

PUBLISHED = Path(__file__).with_name("published.json")
TITLES = {
    "measured": "Measured here",
    "released": "Released students, measured here",
    "paper": "Published (not measured here)",
}
ABSENT = "–"


@dataclass(frozen=True)
class Cell:
    """A cell as text, its standard error apart; best: to be marked; value: what it is sorted by."""

    text: str
    error: str = ""
    best: bool = False
    value: float | None = None

    def __str__(self) -> str:
        return f"{self.text} ±{self.error}" if self.error else self.text


@dataclass(frozen=True)
class Block:
    """One table: the rows of one experiment in one block.

    keys and titles: of its columns, the sampler's name first. source: of published numbers. about: how measured ones
    were taken.
    """

    title: str
    keys: tuple[str, ...]
    titles: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    source: str | None = None
    about: str | None = None

    @property
    def foot(self) -> str | None:
        """The line below the table."""
        return f"Source: {self.source}" if self.source else self.about

    def only(self, keys: Sequence[str]) -> Block:
        """The same table with these columns alone, as far as it has them."""
        kept = [self.keys.index(key) for key in keys if key in self.keys]
        lines = tuple(tuple(line[i] for i in kept) for line in self.lines)
        chosen = tuple(self.keys[i] for i in kept), tuple(self.titles[i] for i in kept)
        return Block(self.title, *chosen, lines, self.source, self.about)


def published_rows(families: Sequence[str] | None = None, path: Path = PUBLISHED) -> list[Row]:
    """The authors' numbers, as rows of block `paper`, each with its source; one group a metric, teachers first."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    empty = dict.fromkeys(COLUMNS)
    found = [row for row in rows if families is None or row["family"] in families]
    found.sort(key=lambda row: (row["metric"], row["family"], row["sampler"] != "teacher"))
    return [{**empty, **row, "block": "paper", "experiment": row["metric"]} for row in found]


def best(rows: Sequence[Row], column: Column) -> set[int]:
    """Indices of the rows that hold the best value of a column among the few-step samplers of their experiment.

    Floors, teachers and samplers that take as many evaluations as their teacher do not compete, nor does `onestep*`,
    whose images are noise: that is varied, and soon drawn. Neither does a sampler without rivals, nor a value under
    another metric.
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
    return row["block"], row["experiment"], row["metric"], row["teacher"]


def _competes(row: Row, rows: Sequence[Row]) -> bool:
    if row["sampler"] in (*FLOORS, "teacher", "onestep*"):
        return False
    teachers = [r["evaluations"] for r in rows if r["sampler"] == "teacher" and _contest(r) == _contest(row)]
    known = [steps for steps in teachers if steps is not None]
    return not known or row["evaluations"] is None or row["evaluations"] < max(known)


def make_blocks(rows: Sequence[Row], keys: Sequence[str] = KEYS) -> list[Block]:
    """Measured, released and published rows in separate blocks, one table per experiment; empty columns left out."""
    columns = [column for column in ALL if column.key in keys]
    marks = {column.key: best(rows, column) for column in columns}
    blocks = []
    order = {name: i for i, name in enumerate(TITLES)}
    groups = dict.fromkeys((row["block"] or "measured", row["experiment"]) for row in rows)
    for block, experiment in sorted(groups, key=lambda group: order.get(group[0], len(order))):
        chosen = [
            i for i, row in enumerate(rows) if (row["block"] or "measured", row["experiment"]) == (block, experiment)
        ]
        used = [column for column in columns if any(rows[i].get(column.key) is not None for i in chosen)]
        blocks.append(_block(f"{TITLES.get(block, block)}: {experiment}", rows, chosen, used, marks))
    return blocks


def _block(
    title: str, rows: Sequence[Row], chosen: list[int], columns: list[Column], marks: dict[str, set[int]]
) -> Block:
    metrics = list(dict.fromkeys(rows[i]["metric"] for i in chosen if rows[i]["metric"]))
    titles = tuple(metrics[0] if c.key == "value" and len(metrics) == 1 else c.title for c in columns)
    lines = tuple(tuple(_cell(rows[i], c, i in marks[c.key]) for c in columns) for i in chosen)
    sources = list(dict.fromkeys(rows[i]["source"] for i in chosen if rows[i].get("source")))
    about = None if sources else _about([rows[i] for i in chosen])
    return Block(title, tuple(c.key for c in columns), titles, lines, "; ".join(sources) or None, about)


def _cell(row: Row, column: Column, best: bool) -> Cell:
    value, error = row.get(column.key), row.get(f"{column.key}_error")
    if value is None:
        return Cell(ABSENT)
    text = column.show(value)
    decimals = sum(letter.isdigit() for letter in text.partition(".")[2])
    shown = error is not None and round(error, decimals) > 0
    number = float(value) if isinstance(value, int | float) else None
    return Cell(text, f"{error:.{decimals}f}" if shown else "", best, number)


def short_revision(sha: str) -> str:
    """Seven digits of a commit, and whether the tree differed from it."""
    return sha[:7] + ("-dirty" if sha.endswith("-dirty") else "")


def _about(rows: Sequence[Row]) -> str | None:
    """Protocol, number of images, seed, revision and timing of measured rows, each named once."""

    def each(key: str, show: Callable[[Any], str] = str) -> str:
        return " or ".join(dict.fromkeys(show(row[key]) for row in rows if row.get(key) is not None))

    facts = {
        "protocol": each("protocol"),
        "images": each("images", lambda n: f"{n:,}"),
        "seed": each("seed"),
        "revision": each("revision", short_revision),
        "timing": each("timing"),
        "on": each("cpu"),
        "chosen on": each("selected_on"),
    }
    said = "; ".join(f"{name} {value}" for name, value in facts.items() if value)
    return f"± is one standard error; {said}" if said else None


def dirty_notes(rows: Sequence[Row]) -> list[str]:
    """The experiments whose rows belong to no commit."""
    dirty = dict.fromkeys(row["experiment"] for row in rows if str(row.get("revision")).endswith("-dirty"))
    return [f"{name}: measured from a working tree that differed from its commit" for name in dirty]


def floor_notes(rows: Sequence[Row]) -> list[str]:
    """Experiments whose teacher is better than its tokenizer's reconstructions, which are no floor then."""
    found = []
    for row in rows:
        same = [one for one in rows if one["experiment"] == row["experiment"] and one["sampler"] == "teacher"]
        if row["sampler"] != "reconstruction" or not same or None in (row["value"], same[0]["value"]):
            continue
        if row["value"] > same[0]["value"]:
            found.append(
                f"{row['experiment']}: the reconstructions ({significant(row['value'])}) are farther from the "
                f"reference than the teacher ({significant(same[0]['value'])}): no floor, so no excess is shown"
            )
    return found


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
