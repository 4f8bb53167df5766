"""The samples of an experiment on the page: single images that the reader arranges, and distances by class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from dd.evaluation.rows import Row
from dd.report.columns import significant


@dataclass(frozen=True)
class Sheet:
    """tiles.webp of an experiment: a line per sampler, `each` images of every name beside each other."""

    path: Path
    side: int
    each: int
    names: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def shown(self) -> int:
        """Pixels of an image on the page."""
        return max(self.side, 56)

    def style(self, name: str, uri: str) -> str:
        """CSS of the class `name`, whose elements are single images."""
        width, height = (count * self.shown for count in (len(self.names) * self.each, len(self.labels)))
        size = f"width:{self.shown}px;height:{self.shown}px;background-size:{width}px {height}px"
        return f".{name}{{{size};background-image:url({uri})}}"

    def table(self, name: str) -> str:
        """One image of each name by every sampler; the script shows more of one name."""
        head = "".join(f'<th scope="col">{escape(text)}</th>' for text in self.names)
        lines = []
        for line, label in enumerate(self.labels):
            cells = "".join(
                f'<td><i class="tile {name}" style="background-position:{-column * self.each * self.shown}px '
                f'{-line * self.shown}px"></i></td>'
                for column in range(len(self.names))
            )
            lines.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
        facts = f'data-each="{self.each}" data-side="{self.shown}" data-sheet="{name}"'
        return (
            f'<div class="scroll tiles" {facts}><table><thead><tr><th></th>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>"
        )


def read_sheet(folder: Path) -> Sheet | None:
    """The sheet of results/<experiment>/; None for results of an earlier version."""
    try:
        facts = json.loads((folder / "tiles.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not (folder / "tiles.webp").is_file():
        return None
    names, labels = (tuple(facts[key]) for key in ("names", "labels"))
    return Sheet(folder / "tiles.webp", facts["side"], facts["each"], names, labels)


def class_table(rows: Sequence[Row]) -> str:
    """Distance of each class's images alone, by sampler; empty where no row knows them."""
    known = [row for row in rows if row.get("class_distances")]
    if not known:
        return ""
    head = "".join(f'<th scope="col" data-key="c{i}">{escape(row["label"])}</th>' for i, row in enumerate(known))
    lines = []
    for name in known[0]["class_distances"]:
        values = [row["class_distances"].get(name) for row in known]
        cells = "".join(
            f'<td data-key="c{i}">–</td>'
            if v is None
            else f'<td data-key="c{i}" data-value="{v:.6g}">{significant(v)}</td>'
            for i, v in enumerate(values)
        )
        lines.append(f'<tr><th data-key="class">{escape(name)}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col" data-key="class">class</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
