"""The plot of docs/geometry.md: how few-step samplers fare with the number of tokens and codes. Measured rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dd.evaluation.figures import INK, inked, new_figure
from dd.evaluation.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {
    "quality_ratio": "distance, of the teacher's",
    "speedup": "speed-up, throughput",
    "latency_speedup": "speed-up, batch 1",
}
STYLE = {1: ("#D55E00", "o"), 2: ("#0072B2", "s")}  # by evaluations


def geometry_rows(rows: Iterable[Row]) -> list[Row]:
    """Rows of the student alone whose numbers of tokens and codes are known, fewest tokens first."""
    known = [row for row in rows if row["sampler"] == "dd" and row["tokens"] and row["evaluations"] in STYLE]
    return sorted(known, key=lambda row: (row["tokens"], row["codes"], row["evaluations"]))


@inked
def geometry_figure(rows: Sequence[Row]) -> Figure:
    """A panel for each of the ratio and the two speed-ups against the tokens of an image; points name their codes."""
    figure = new_figure(10.5, 3.4)
    axes = figure.subplots(1, len(PANELS))
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        axis.set(title=title, xlabel="tokens of an image", xscale="log")
        _panel(axis, key, [row for row in geometry_rows(rows) if row[key] is not None])
    return figure


def _panel(axis: Any, key: str, rows: Sequence[Row]) -> None:
    if not rows:
        axis.text(0.5, 0.5, "nothing measured", ha="center", transform=axis.transAxes, color=INK)
        return
    axis.set_yscale("log")
    for steps, (colour, marker) in STYLE.items():
        mine = [row for row in rows if row["evaluations"] == steps]
        if not mine:
            continue
        x, y = [row["tokens"] for row in mine], [row[key] for row in mine]
        axis.plot(x, y, color=colour, marker=marker, ls="none", label=f"{steps} step{'s' * (steps > 1)}")
        for row in mine:
            text = f"{row['experiment']}, {row['codes']:,} codes"
            place = (row["tokens"], row[key])
            axis.annotate(text, place, (0, 6), textcoords="offset points", fontsize=6, color=INK, ha="center")
    ticks = sorted({row["tokens"] for row in rows})
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.margins(x=0.35, y=0.2)
    axis.legend(frameon=False, fontsize=8)
