"""Figures of results: samples of the same noise, quality against evaluations, training curves."""

from __future__ import annotations

import csv
import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import numpy as np

from dd.system.files import atomic_path, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
Curves = Mapping[str, Sequence[tuple[float, float]]]
# Colour-blind safe (Okabe and Ito 2008), with markers, so that nothing is said by colour alone.
STYLE = {
    "teacher": ("#0072B2", "s"),
    "dd": ("#D55E00", "o"),
    "dd+teacher": ("#E69F00", "D"),
    "skip": ("#CC79A7", "v"),
    "onestep*": ("#56B4E9", "X"),
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00")
DASHES = ("-", "--", ":")
LEAST_RANGE = 1.5  # of the quality plot's upper over its lower end: less would blow up differences of noise
TIMES = {
    "latency_seconds": "milliseconds for one image, batch 1",
    "seconds_per_image": "milliseconds per image, in batches",
}
MOST_PANELS = 3  # beside each other
SQUASHED = 3.0  # a sampler this many times above the teacher and all students stands at the edge, as an arrow
TILE = 96  # pixels of an image on the page's sheet, at most
STEEP = 30  # a panel of training curves that spans more is drawn with a logarithmic axis
FONT, EXPAND, STEPS = 8, (1.3, 1.6), 500  # of labels: size, room around each, steps in which they are moved apart
INK = "#5f5f5f"
TEXT = "#262626"  # report.html swaps it for a light one on a dark page
RC: Any = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), TEXT) | {
    "svg.hashsalt": "dd",
    "svg.fonttype": "path",
}


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure; width and height in inches."""
    from matplotlib.figure import Figure as NewFigure  # without pyplot: no global state, no window system

    return NewFigure(figsize=(width, height), layout=layout)


def save_figure(figure: Figure, path: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write `path`.png and so on; the same figure gives the same bytes."""
    from matplotlib import rc_context

    files = []
    for kind in formats:
        target = path.with_suffix(f".{kind}")
        with atomic_path(target) as scratch, rc_context(RC):
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(scratch, format=kind, dpi=144, metadata=metadata, transparent=kind == "svg")
        files.append(target)
    return files


def inked(draw: Callable[P, R]) -> Callable[P, R]:
    """Colours are taken when an axis is made, so the settings must hold then."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import rc_context

        with rc_context(RC):
            return draw(*args, **kwargs)

    return wrapped


@dataclass(frozen=True)
class Tiles:
    """Which images a grid shows: `each` images of every name (a class, or a caption), name by name.

    indices: (names * each,) sample indices, the same for every sampler.
    """

    names: tuple[str, ...]
    each: int
    indices: Tensor

    @classmethod
    def of(cls, labels: Tensor | None, names: Sequence[str], most: int = 10, each: int = 8) -> Tiles:
        """labels: (N,) classes of the samples, None for captions, of which sample i has the i-th."""
        import torch

        if labels is None:
            return cls(tuple(names[:most]), 1, torch.arange(min(most, len(names))))
        classes = labels.unique()[:most].tolist()  # few images may leave out the first classes
        found = [torch.nonzero(labels == number).flatten()[:each] for number in classes]
        fewest = min(map(len, found))
        return cls(tuple(names[number] for number in classes), fewest, torch.cat([some[:fewest] for some in found]))


def write_tiles(images: Mapping[str, Tensor], tiles: Tiles, folder: Path) -> None:
    """tiles.webp, a line of images per sampler without anything between, and tiles.json, which says what is where.

    images: label to (names * each, 3, H, W) uint8. Larger ones are made smaller: a page holds them all.
    """
    from PIL import Image

    lines = [batch.permute(2, 0, 3, 1).reshape(batch.shape[2], -1, 3).numpy() for batch in images.values()]
    sheet, side = Image.fromarray(np.concatenate(lines)), lines[0].shape[0]
    if side > TILE:
        sheet = sheet.resize((sheet.width * TILE // side, sheet.height * TILE // side), Image.Resampling.LANCZOS)
    with atomic_path(folder / "tiles.webp") as scratch:
        sheet.save(scratch, format="WEBP", quality=95)  # a quarter of the bytes; samples.png is exact
    facts = {"side": min(side, TILE), "each": tiles.each, "names": list(tiles.names), "labels": list(images)}
    write_text(folder / "tiles.json", json.dumps(facts, indent=1) + "\n")


@inked
def sample_grid(images: Mapping[str, Tensor], names: Sequence[str] = ()) -> Figure:
    """One line of images per sampler: column j of every line was drawn from the same noise and class.

    images: label to (n, 3, H, W) uint8. names: of the columns, above them; long ones in several lines.
    """
    columns = max(len(batch) for batch in images.values())
    label_width, size = 0.4 + 0.085 * max(map(len, images)), 0.62  # inches
    heads = [textwrap.fill(name, 11) for name in names]
    head = 0.12 * max((text.count("\n") + 2 for text in heads), default=0)
    height = head + 0.66 * len(images)
    figure = new_figure(label_width + size * columns, height, layout=None)
    axes = figure.subplots(len(images), 1, squeeze=False)[:, 0]
    left = label_width / (label_width + size * columns)
    figure.subplots_adjust(left=left, right=1, top=1 - head / height, bottom=0, hspace=0.06)
    for axis, (label, batch) in zip(axes, images.items(), strict=True):
        strip = batch.permute(2, 0, 3, 1).reshape(batch.shape[2], -1, 3).numpy()  # (H, n W, 3)
        axis.imshow(strip, interpolation="nearest", aspect="auto")
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, color=INK)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for column, text in enumerate(heads[:columns]):
        place = left + (1 - left) * (column + 0.5) / columns
        figure.text(place, 1 - head / height, text, fontsize=6, color=INK, ha="center", va="bottom")
    return figure


@inked
def quality_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Distance against network evaluations (the paper's figure 1), one panel per experiment; both axes logarithmic."""
    names = list(dict.fromkeys(row["experiment"] for row in rows))
    columns = max(min(len(names), MOST_PANELS), 1)
    lines = max(math.ceil(len(names) / columns), 1)
    figure = new_figure(5.4 * columns, 3.8 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis in axes[max(len(names), 1) :]:
        axis.set_visible(False)
    panels = {name: [row for row in rows if row["experiment"] == name] for name in names}
    for axis, (name, mine) in zip(axes, panels.items(), strict=False):
        _quality_panel(axis, name, mine)
    figure.draw_without_rendering()  # fixes the panels' places: labels are fitted into them
    for axis, mine in zip(axes, panels.values(), strict=False):
        _quality_labels(axis, mine)
    return figure


def time_key(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Which time of an image most rows know: that at batch 1, else that in batches; None for neither."""
    return next((key for key in TIMES if sum(row.get(key) is not None for row in rows) > 1), None)


@inked
def latency_figure(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Distance against the time of an image, with a line through what nothing beats in both (Pareto); None untimed."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    key = time_key(rows)
    timed = [{**row, "evaluations": 1000 * row[key]} for row in rows if key and row.get(key) is not None]
    if key is None or not _measured(timed):
        return None
    figure = new_figure(6.4, 3.8)
    axis = figure.subplots()
    _quality_panel(axis, "", timed, TIMES[key])
    axis.set_xticks([])
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    edge = far_above(timed) or math.inf
    line = pareto([(row["evaluations"], min(row["value"], edge)) for row in _measured(timed)])
    axis.step(*zip(*line, strict=True), where="post", color=INK, ls="--", lw=1, zorder=0)
    figure.draw_without_rendering()
    _quality_labels(axis, timed)
    return figure


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one beats in both coordinates (lower is better), from left to right."""
    kept: list[tuple[float, float]] = []
    for point in sorted(points):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return kept


def _measured(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["value"] is not None and row["evaluations"] is not None]


def _students(rows: Sequence[Mapping[str, Any]]) -> list[list[tuple[float, float]]]:
    """Lines through the distilled samplers: one for each width of their noise, which their labels name."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in _measured(rows):
        if row["sampler"] in ("dd", "dd+teacher"):
            noise = str(row["label"]).partition(" noise ")[2]
            lines.setdefault(noise, []).append((row["evaluations"], row["value"]))
    return [sorted(line) for line in lines.values() if len(line) > 1]


def far_above(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The distance above which samplers would squash the rest of a plot; None where nothing is."""
    near = [row["value"] for row in _measured(rows) if row["sampler"] in ("teacher", "dd", "dd+teacher")]
    if not near or all(row["value"] <= SQUASHED * max(near) for row in _measured(rows)):
        return None
    return SQUASHED * max(near)


def _floor(rows: Sequence[Mapping[str, Any]]) -> float | None:
    floor = next((row["value"] for row in rows if row["sampler"] == "reconstruction"), None)
    return floor if floor is not None and floor > 0 else None


def _quality_panel(
    axis: Any, name: str, rows: Sequence[Mapping[str, Any]], across: str = "network evaluations per image"
) -> None:
    drawn = _measured(rows)
    axis.set(title=name, xlabel=across)
    if not drawn:
        axis.text(0.5, 0.5, "nothing measured", ha="center", transform=axis.transAxes, color=INK)
        return
    axis.set_ylabel(f"{drawn[0]['metric']} (lower is better)")
    axis.set(xscale="log", yscale="log")
    edge = far_above(rows)
    for row in drawn:
        colour, marker = STYLE.get(row["sampler"], (INK, "o"))
        error = row.get("value_error")
        bar = None if error is None else 2 * error
        value = row["value"]
        if edge is not None and value > edge:  # an arrow at the edge, its value in its name
            value, marker, bar = edge, "^", None
        axis.errorbar(row["evaluations"], value, bar, color=colour, marker=marker, ms=7, capsize=3, ls="none")
    for line in _students(rows):
        axis.plot(*zip(*line, strict=True), color=STYLE["dd"][0], lw=1, alpha=0.5, zorder=0)
    if (floor := _floor(rows)) is not None:
        axis.axhline(floor, color=INK, ls=":", lw=1)
    axis.margins(0.15)
    _quality_ticks(axis, sorted({row["evaluations"] for row in drawn}))
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)


def _quality_ticks(axis: Any, evaluations: list[int]) -> None:
    """Room around points that lie close, and ticks that fit the range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_ylim()
    widen = max(math.sqrt(LEAST_RANGE * low / high), 1)
    axis.set_ylim(low / widen, high * widen)
    if len(evaluations) == 1:
        axis.set_xlim(evaluations[0] / 2, evaluations[0] * 2)
    ticks = _apart(evaluations)
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set_xticks([], minor=True)
    narrow = high * widen / (low / widen) < 5
    axis.yaxis.set_major_locator(MaxNLocator(5) if narrow else LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _apart(ticks: list[int], least: float = 1.3) -> list[int]:
    """Ticks of a logarithmic axis that leave their neighbours room; the last one always stays."""
    kept: list[int] = []
    for tick in reversed(ticks):
        if not kept or kept[-1] >= least * tick:
            kept.append(tick)
    return kept[::-1]


def _quality_labels(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Names of points and floor, moved apart; in the colour of text: the markers' own are too light to read."""
    from adjustText import adjust_text

    edge = far_above(rows) or math.inf
    points = [(row["evaluations"], min(row["value"], edge), _name(row, edge), TEXT) for row in _measured(rows)]
    if not points:
        return
    if (floor := _floor(rows)) is not None:
        points.append((axis.get_xlim()[0], floor, "tokenizer reconstructions", INK))
    texts = [axis.text(x, y, text, fontsize=FONT, color=colour, in_layout=False) for x, y, text, colour in points]
    line = {"arrowstyle": "-", "color": TEXT, "lw": 0.6, "alpha": 0.6, "zorder": 1}
    # Steps are counted: a limit of time would give other bytes on another machine.
    adjust_text(texts, ax=axis, expand=EXPAND, iter_lim=STEPS, arrowprops=line)
    for patch in axis.patches:
        patch.set_in_layout(False)


def _name(row: Mapping[str, Any], edge: float) -> str:
    """A point's text; that of one beyond the edge says its value."""
    return f"{row['label']} ({row['value']:.3g})" if row["value"] > edge else str(row["label"])


def read_curves(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Training curves below a folder, from DVCLive's files plots/metrics/<kind>/<name>.tsv: {kind/name: points}."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for file in sorted(folder.rglob("metrics/**/*.tsv")):
        with open(file, encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t"))
        column = next((name for name in (rows[0] if rows else ()) if name not in ("step", "timestamp")), None)
        if column is not None:
            name = file.relative_to(folder).with_suffix("").as_posix().split("metrics/", 1)[1]
            curves[name] = [(float(row["step"]), float(row[column])) for row in rows]
    return curves


@inked
def curves_figure(curves: Curves) -> Figure:
    """One panel per kind of curve (the name before the slash), every curve of that kind in it."""
    kinds = list(dict.fromkeys(name.split("/")[0] for name in curves))
    figure = new_figure(4.4 * len(kinds), 3.2)
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axis, kind in zip(axes, kinds, strict=True):
        lines = [(name, points) for name, points in curves.items() if name.split("/")[0] == kind]
        for number, (name, points) in enumerate(lines):
            x = _with_gaps(np.asarray(points, dtype=float).reshape(-1, 2))
            look = {"color": COLOURS[number % len(COLOURS)], "ls": DASHES[number // len(COLOURS) % len(DASHES)]}
            axis.plot(x[:, 0], x[:, 1], label=name.partition("/")[2] or name, lw=1.5, **look)
        axis.set(title=kind.replace("_", " "), xlabel="training step")
        if len(lines) > 1:
            axis.legend(frameon=False, fontsize=8)
        values = [value for _, points in lines for _, value in points]
        if min(values) > 0 and max(values) > STEEP * min(values):
            axis.set_yscale("log")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _with_gaps(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) points with NaN where some are missing (a far wider step than usual), so that no line crosses there."""
    steps = np.diff(points[:, 0])
    if len(steps) < 2:
        return points
    holes = np.flatnonzero(steps > 2.5 * np.median(steps)) + 1
    return np.insert(points, holes, np.nan, axis=0)
