"""The plot of docs/geometry.md: how few-step samplers fare with the number of tokens and codes. Measured rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from dd.evaluation.figures import COLOURS, INK, inked, new_figure
from dd.evaluation.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {
    "quality_ratio": "distance, of the teacher's",
    "speedup": "speed-up, throughput",
    "latency_speedup": "speed-up, batch 1",
}
MARKERS = {1: "o", 2: "s"}  # by evaluations
TICKS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300)


def geometry_rows(rows: Iterable[Row]) -> list[Row]:
    """Rows of the student alone whose numbers of tokens and codes are known, fewest tokens first."""
    known = [row for row in rows if row["sampler"] == "dd" and row["tokens"] and row["evaluations"] in MARKERS]
    return sorted(known, key=lambda row: (row["tokens"], row["codes"], row["evaluations"]))


@inked
def geometry_figure(rows: Sequence[Row]) -> Figure:
    """A panel for each of the ratio and the two speed-ups against an image's tokens; a colour for each experiment."""
    from matplotlib.lines import Line2D

    figure, shown = new_figure(10.5, 4.2), geometry_rows(rows)
    axes = figure.subplots(1, len(PANELS))
    names = {row["experiment"]: f"{row['experiment']}: {row['tokens']} tokens, {row['codes']:,} codes" for row in shown}
    colours = dict(zip(names, cycle(COLOURS)))
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        axis.set(title=title, xlabel="tokens of an image", xscale="log")
        _panel(axis, key, [row for row in shown if row[key] is not None], colours)
    entries = [Line2D([], [], color=colours[name], marker="o", label=text) for name, text in names.items()]
    for steps, marker in MARKERS.items():
        label = f"{steps} step{'s' * (steps > 1)}"
        entries.append(Line2D([], [], color=INK, marker=marker, ls="none", label=label))
    if names:
        figure.legend(handles=entries, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _panel(axis: Any, key: str, rows: Sequence[Row], colours: Mapping[str, str]) -> None:
    if not rows:
        axis.text(0.5, 0.5, "nothing measured", ha="center", transform=axis.transAxes, color=INK)
        return
    axis.set_yscale("log")
    for name, colour in colours.items():
        mine = [row for row in rows if row["experiment"] == name]
        axis.plot([row["tokens"] for row in mine], [row[key] for row in mine], color=colour, lw=1, label=name)
        for row in mine:
            axis.plot(row["tokens"], row[key], color=colour, marker=MARKERS[row["evaluations"]], ls="none", alpha=0.85)
    tokens = sorted({row["tokens"] for row in rows})
    axis.set_xticks(tokens, [str(count) for count in tokens])
    axis.margins(x=0.15, y=0.15)
    low, high = axis.get_ylim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:g}\u00d7" for tick in ticks])
    axis.minorticks_off()
    axis.grid(axis="y", alpha=0.3)
