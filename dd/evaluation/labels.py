"""Labels of points that may lie close together: each takes the nearest free place, with a thin line if that is far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.lines import Line2D

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT = 8
# Where a label may go: distances from its point in points (1/72 inch), and directions in the order of preference.
DISTANCES = (9, 16, 25, 36, 49, 64, 82, 102)
ANGLES = (25, 155, -25, 205, 90, -90, 60, 120, -60, 240, 0, 180)
LEADER = 12  # a label farther away than this has a line to its point
MARKER = 5.0  # half the side of a marker's box, in points
# What a place costs, in points of distance: on another label, on a marker, on a piece of a line, out of the panel.
ON_LABEL, ON_MARKER, ON_LINE, OUTSIDE = 300.0, 60.0, 15.0, 1000.0
CONFUSED = 20.0

Pixels = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """x, y in data coordinates; error: half the height of its bar, in data units."""

    x: float
    y: float
    text: str
    error: float = 0.0


class Box(NamedTuple):
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box, gap: float = 0) -> bool:
        """Whether they come nearer than `gap`."""
        across = self.x0 - gap < other.x1 and other.x0 < self.x1 + gap
        return across and self.y0 - gap < other.y1 and other.y0 < self.y1 + gap

    def contains(self, pixel: Pixels) -> bool:
        return self.x0 < pixel[0] < self.x1 and self.y0 < pixel[1] < self.y1

    def distance(self, pixel: Pixels) -> float:
        """From a pixel to the nearest point of the box."""
        across = max(self.x0 - pixel[0], 0, pixel[0] - self.x1)
        return math.hypot(across, max(self.y0 - pixel[1], 0, pixel[1] - self.y1))


def _around(middle: Pixels, width: float, height: float) -> Box:
    (x, y), w, h = middle, width / 2, height / 2
    return Box(x - w, y - h, x + w, y + h)


@dataclass(frozen=True)
class _Place:
    """box: the label's, middle: its centre, near: where its line would end, all in pixels; distance in points."""

    box: Box
    near: Pixels
    middle: Pixels
    distance: float


class Labels:
    """Labels of one panel. Its layout must be final: call `figure.draw_without_rendering()` before."""

    def __init__(self, axis: Axes, points: Sequence[Point], lines: Iterable[Sequence[Pixels]] = ()) -> None:
        """lines: polylines in data coordinates that labels keep clear of."""
        self.axis, self.points = axis, points
        figure: Any = axis.figure
        self.panel = Box(*axis.bbox.extents)
        self.scale: float = figure.dpi / 72  # pixels in a point
        self.centres = [self._display(p.x, p.y) for p in points]
        self.bars = [self._bar(point) for point in points]
        self.taken: list[Box] = []
        self.paths = [pixel for line in lines for pixel in self._pieces([self._display(*xy) for xy in line])]

    def name_line(self, y: float, text: str, colour: str) -> None:
        """Name a horizontal line where that hides the fewest points: left or right, above or below it."""
        width, height = self._size(text)
        level = self._display(self.points[0].x, y)[1]
        panel = self.axis.bbox
        places: list[tuple[float, Pixels]] = []
        for rank, (fraction, sign) in enumerate((f, s) for f in (0.015, 0.985, 0.5) for s in (1, -1)):
            across = panel.x0 + fraction * (panel.width - width) + width / 2
            middle = (across, level + sign * (2 * self.scale + height / 2))
            places.append((self._cost(_around(middle, width, height)) + rank, middle))
        middle = min(places)[1]
        self.taken.append(_around(middle, width, height))
        self._write(text, middle, colour)

    def name_points(self, colour: str) -> None:
        """Name every point, those in a crowd first."""
        near = [sum(math.dist(a, b) < 60 * self.scale for b in self.centres) for a in self.centres]
        for i in sorted(range(len(self.points)), key=lambda i: (-near[i], self.centres[i])):
            point, centre = self.points[i], self.centres[i]
            options = [
                (self._cost(place.box) + self._confusion(place, centre) + extra, place)
                for extra, place in self._places(centre, point.text)
            ]
            place = min(options, key=lambda option: option[0])[1]
            self.taken.append(place.box)
            self._write(point.text, place.middle, colour)
            if place.distance > LEADER:
                self.paths += self._pieces([centre, place.near])
                self._leader(centre, place.near, colour)

    def _places(self, centre: Pixels, text: str) -> Iterator[tuple[float, _Place]]:
        """Where the label of a point may go, with what that costs beside what it hides."""
        width, height = self._size(text)
        for distance in DISTANCES:
            for rank, angle in enumerate(ANGLES):
                across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
                near = (centre[0] + across * distance * self.scale, centre[1] + up * distance * self.scale)
                # the side that looks at the point touches `near`: beside it where steep is no word, else centred on it
                shift = 0.0 if abs(across) < 0.1 else math.copysign(width / 2, across)
                lift = math.copysign(height / 2, up) if abs(across) < 0.1 else 0.0
                middle = (near[0] + shift, near[1] + lift)
                yield distance + 0.4 * rank, _Place(_around(middle, width, height), near, middle, distance)

    def _cost(self, box: Box) -> float:
        panel = self.panel
        inside = panel.x0 <= box.x0 and box.x1 <= panel.x1 and panel.y0 <= box.y0 and box.y1 <= panel.y1
        return (
            (0 if inside else OUTSIDE)
            + ON_LABEL * sum(box.overlaps(other, self.scale) for other in self.taken)
            + ON_MARKER * sum(box.overlaps(bar) for bar in self.bars)
            + ON_LINE * min(sum(box.contains(pixel) for pixel in self.paths), 4)
        )

    def _confusion(self, place: _Place, centre: Pixels) -> float:
        """What makes a label look like another point's: that one is nearer, or the line crosses another label."""
        if place.distance <= LEADER:
            return CONFUSED * any(place.box.distance(other) < place.box.distance(centre) for other in self.centres)
        pieces = self._pieces([centre, place.near])
        return CONFUSED * any(box.contains(pixel) for box in self.taken for pixel in pieces)

    def _write(self, text: str, middle: Pixels, colour: str) -> None:
        """Text around a pixel, kept as a share of the panel, so that another resolution does not move it."""
        where = self.axis.transAxes.inverted().transform(middle)
        written = self.axis.text(where[0], where[1], text, transform=self.axis.transAxes)
        written.set(fontsize=FONT, color=colour, in_layout=False, ha="center", va="center")

    def _leader(self, start: Pixels, end: Pixels, colour: str) -> None:
        across, up = zip(*self.axis.transAxes.inverted().transform([start, end]), strict=True)
        line = Line2D(across, up, color=colour, lw=0.6, alpha=0.6, zorder=1, transform=self.axis.transAxes)
        line.set_in_layout(False)
        self.axis.add_artist(line)  # unlike plot(), leaves the limits of the axes alone

    def _display(self, x: float, y: float) -> Pixels:
        across, up = self.axis.transData.transform((x, y))
        return float(across), float(up)

    def _bar(self, point: Point) -> Box:
        """The box of a marker and its error bar."""
        x, middle = self._display(point.x, point.y)
        low = self._display(point.x, max(point.y - point.error, point.y / 10))[1]
        high = self._display(point.x, point.y + point.error)[1]
        half = MARKER * self.scale
        return Box(x - half, min(low, middle - half), x + half, max(high, middle + half))

    def _size(self, text: str) -> Pixels:
        """Width and height of a label."""
        probe = self.axis.text(0, 0, text, fontsize=FONT)
        box = probe.get_window_extent()
        probe.remove()
        return box.width, box.height

    def _pieces(self, line: Sequence[Pixels]) -> list[Pixels]:
        """Pixels along a polyline, four points apart."""
        found = []
        for a, b in pairwise(line):
            count = max(int(math.dist(a, b) / (4 * self.scale)), 1)
            found += [(a[0] + (b[0] - a[0]) * i / count, a[1] + (b[1] - a[1]) * i / count) for i in range(1, count)]
        return found
