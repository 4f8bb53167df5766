"""The results table as text: for a terminal, Markdown, CSV, JSON, LaTeX or HTML."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from dd.errors import DDError
from dd.evaluation.rows import Row
from dd.report.blocks import ABSENT, Block, Cell, floor_notes, make_blocks, missing_notes
from dd.report.columns import BY_IMPORTANCE, KEYS, SHORT

if TYPE_CHECKING:
    import pandas as pd

FORMATS: tuple[str, ...] = ("table", "markdown", "csv", "json", "latex", "html")
GAP = 2  # letters between two columns in a terminal
LATEX_WIDTH, LATEX_GAP = 74, 3  # of the text of an article in letters of \small; between two columns


def render(
    rows: Sequence[Row],
    kind: str,
    columns: Sequence[str] | None = None,
    width: int = 100,
    colour: bool = False,
) -> str:
    """The table as text of one of `FORMATS` (html here is the tables alone, without the page around them).

    columns: keys; without any, a terminal of `width` letters and LaTeX show the most important ones that fit, the
    other formats all. JSON always holds every key of every row.
    """
    if kind not in FORMATS:
        raise DDError(f"no format '{kind}'; there are {', '.join(FORMATS)}")
    if kind == "json":
        return json.dumps({"rows": list(rows)}, indent=1) + "\n"
    if kind == "csv":
        return _csv(rows, columns)
    blocks, notes = make_blocks(rows, columns or KEYS), [*floor_notes(rows), *missing_notes(rows)]
    if columns is None and kind in ("table", "latex"):
        fitted = fit(blocks, *((width, GAP) if kind == "table" else (LATEX_WIDTH, LATEX_GAP)))
        if kind == "table" and fitted != blocks:
            notes.append("more columns: --columns all")
        blocks = fitted
    parts = {
        "table": lambda b: _rich(b, width, columns is not None, colour),
        "markdown": _markdown,
        "latex": _latex,
        "html": html_table,
    }
    text = "\n".join(parts[kind](block) for block in blocks)
    if not notes or kind == "latex":
        return text
    if kind == "html":
        return text + f'<ul class="notes">{"".join(f"<li>{escape(n)}</li>" for n in notes)}</ul>\n'
    return text + "\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def fit(blocks: Sequence[Block], width: int, gap: int) -> list[Block]:
    """The same columns for all blocks: the most important ones that fit into `width` letters.

    Where not even those of `SHORT` fit beside each other, the standard errors go first.
    """
    with_errors = [key for key in SHORT if any(key in block.keys for block in blocks)]
    chosen = _fitting(blocks, width, gap)
    if not set(with_errors) <= set(chosen):
        blocks = [_without_errors(block) for block in blocks]
        chosen = _fitting(blocks, width, gap)
    return [block.only([key for key in KEYS if key in chosen]) for block in blocks]


def _fitting(blocks: Sequence[Block], width: int, gap: int) -> list[str]:
    chosen: list[str] = []
    for key in BY_IMPORTANCE:
        need = max((_widest(block, key) for block in blocks if key in block.keys), default=0)
        if need and (len(chosen) < 2 or need + gap <= width):
            width -= need + gap
            chosen.append(key)
        elif need:
            break
    return chosen


def _widest(block: Block, key: str) -> int:
    i = block.keys.index(key)
    return max(*map(len, title_lines(block.titles[i])), *(len(str(line[i])) for line in block.lines))


def title_lines(title: str) -> list[str]:
    """A title in the lines of a narrow column: `speed-up, batch 1` in two."""
    return re.sub(", ", ",\n", title).split("\n")


def _without_errors(block: Block) -> Block:
    lines = tuple(tuple(Cell(cell.text, "", cell.best) for cell in line) for line in block.lines)
    about = block.about and block.about.removeprefix("± is one standard error; ")
    return Block(block.title, block.keys, block.titles, lines, block.source, about)


def frame(rows: Sequence[Row], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows as a pandas table, for a notebook or a CSV file: every key a column, nested values as JSON.

    What was not measured is empty, never 0. Columns are of type object: a count beside an empty field stays a whole
    number.
    """
    import pandas as pd

    names = list(columns or dict.fromkeys(key for row in rows for key in row))
    return pd.DataFrame([[_field(row.get(key)) for key in names] for row in rows], columns=names, dtype=object)


def _csv(rows: Sequence[Row], columns: Sequence[str] | None) -> str:
    return str(frame(rows, columns).to_csv(index=False, lineterminator="\n"))


def _field(value: Any) -> Any:
    """What was not measured is empty, never 0; lists and mappings are JSON."""
    if isinstance(value, dict | list):
        return json.dumps(value) if value else ""
    return "" if value is None else value


def _rich(block: Block, width: int, wide: bool, colour: bool) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=block.title, title_justify="left", caption=block.foot, caption_justify="left")
    table.box, table.show_edge, table.pad_edge, table.padding = SIMPLE_HEAD, False, False, (0, GAP - 1, 0, 0)
    for i, title in enumerate(block.titles):
        table.add_column("\n".join(title_lines(title)), justify="left" if i == 0 else "right", no_wrap=i > 0)
    for line in block.lines:
        table.add_row(*(Text(str(cell), style="bold green" if cell.best else "") for cell in line))
    needed = sum(_widest(block, key) + GAP for key in block.keys)  # of columns that were asked for: never cut
    console = Console(file=io.StringIO(), width=max(width, needed) if wide else width, force_terminal=colour)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"  # type: ignore[attr-defined]


def _markdown(block: Block) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = ["---"] + ["---:"] * (len(block.titles) - 1)
    lines = [f"**{block.title}**", "", line(block.titles), line(rule)]
    for cells in block.lines:
        lines.append(line([f"**{cell}**" if cell.best else str(cell).replace("*", "\\*") for cell in cells]))
    if block.foot:
        lines += ["", block.foot]
    return "\n".join(lines) + "\n"


_LATEX = str.maketrans(
    {
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
)


def latex_text(text: str) -> str:
    """Text with everything escaped that LaTeX would read as a command."""
    return text.translate(_LATEX)


def _latex_title(title: str) -> str:
    lines = [latex_text(line) for line in title_lines(title)]
    return lines[0] if len(lines) == 1 else r"\shortstack[r]{" + r"\\".join(lines) + "}"


def _latex(block: Block) -> str:
    """A `table` environment in plain LaTeX, without packages."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    lines = [r"\begin{table}", r"\centering\small", rf"\caption{{{latex_text(block.title)}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(block.titles) - 1)}}}", r"\hline"]
    lines += [line([_latex_title(title) for title in block.titles]), r"\hline"]
    for cells in block.lines:
        texts = [(latex_text(str(cell)).replace(r" $\pm$", r"\,$\pm$\,"), cell.best) for cell in cells]
        lines.append(line([rf"\textbf{{{text}}}" if marked else text for text, marked in texts]))
    lines += [r"\hline", r"\end{tabular}"]
    if block.foot:
        lines.append(rf"\par\footnotesize {latex_text(block.foot)}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def html_table(block: Block, shown: Sequence[str] | None = None) -> str:
    """A table that scrolls sideways on a narrow screen, and that the page's script sorts by a column.

    shown: keys of the columns that are seen at first; the page's reader chooses others. Default: all.
    """
    off = [shown is not None and key not in shown for key in block.keys]
    head = "".join(
        f'<th scope="col" data-key="{key}"{_class(hidden)}>{escape(title)}</th>'
        for key, title, hidden in zip(block.keys, block.titles, off, strict=True)
    )
    body = []
    for cells in block.lines:
        tags = []
        for tag, key, cell, hidden in zip(["th", *["td"] * len(cells)], block.keys, cells, off, strict=False):
            sort = "" if cell.value is None else f' data-value="{cell.value:.6g}"'
            kind = _class(hidden, cell.best)
            tags.append(f'<{tag} data-key="{key}"{sort}{kind}>{escape(cell.text)}{_below(cell)}</{tag}>')
        body.append(f"<tr>{''.join(tags)}</tr>")
    foot = f'<p class="source">{escape(block.foot)}</p>' if block.foot else ""
    return (
        f'<h3>{escape(block.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>{foot}\n"
    )


def _class(hidden: bool, best: bool = False) -> str:
    names = [name for name, true in (("off", hidden), ("best", best)) if true]
    return f' class="{" ".join(names)}"' if names else ""


def _below(cell: Cell) -> str:
    """The error below its value: narrow columns."""
    return f"<small> ±{escape(cell.error)}</small>" if cell.error else ""
