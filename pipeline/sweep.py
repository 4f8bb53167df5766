"""A grid over the parameters of one experiment, each point a DVC experiment in a copy of the working tree.

Each point is `dvc --wait-for-lock exp run --temp`: measured on DVC 3.67, six at once all succeed with the flag (one in
four fails without it), the working tree stays as it is, kill -9 leaves only a folder under .dvc/tmp, and the run cache
is shared. `dvc exp run --queue` hands the points to workers that outlive a cancelled flow, so it is not used.
"""

import itertools
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd.errors import DDError
from pipeline import graph, params, process, provenance, slots, stage
from pipeline.graph import Plan
from pipeline.stage import DVC, Line, Outcome

LIMIT = 256  # points of one sweep; more is a typing error more often than a wish


@dataclass(frozen=True)
class Point:
    """One experiment: its name in `dvc exp show`, and what it changes."""

    name: str
    changes: tuple[params.Change, ...]


@dataclass(frozen=True)
class Sweep:
    """A checked sweep: what may run now."""

    root: Path
    plan: Plan
    target: str
    points: tuple[Point, ...]
    jobs: int

    @property
    def accelerator(self) -> bool:
        return any(node.accelerator for node in self.plan.values())


def prepare(root: Path, experiment: str, grid: Mapping[str, Sequence[Any]], jobs: int) -> Sweep:
    """Check a sweep and list its points. Raises DDError, one line, before anything runs."""
    plan = graph.read(root)
    if experiment not in graph.experiments(plan):
        hint = graph.nearest(experiment, graph.experiments(plan))
        raise DDError(f"expected the name of an experiment, found {experiment!r}: {hint}")
    if jobs < 1:
        raise DDError(f"expected at least one point at a time, found jobs={jobs}: use 1")
    if provenance.git(root, "rev-parse", "HEAD") is None:
        raise DDError("expected a commit for the experiments to start from, found none: commit the project first")
    target = f"evaluate@{experiment}"
    if target not in plan:
        raise DDError(f"expected a stage {target!r} to end each point with, found none in dvc.yaml")
    return Sweep(root, graph.choose(plan, [target]), target, tuple(_points(root, experiment, grid)), jobs)


def run_point(sweep: Sweep, point: Point, line: Line) -> Outcome:
    """Run one point; it takes a place on the accelerator if one of its stages does. Raises process.StoppedError."""
    last: list[str] = [""]
    ran: list[bool] = []

    def each(text: str) -> None:
        ran.append(text.startswith("Running stage '"))
        if text.strip() and not text.startswith(("> ", "ERROR: failed to reproduce")):
            last[0] = text.strip()
        line(text)

    with slots.slot(stage.scratch(sweep.root), sweep.jobs, point.name, line) as held:
        status = process.run(
            command(sweep, point),
            cwd=sweep.root,
            line=each,
            env={"DVC_NO_ANALYTICS": "1"},
            hold=[held] if sweep.accelerator else [],
        )
    if status:
        return Outcome(point.name, "failed", f"{point.name} failed: {last[0]}", 0.0)
    changed = ", ".join(map(str, point.changes)) or "as it is"
    return Outcome(point.name, "ran" if any(ran) else "restored", changed, 0.0)


def command(sweep: Sweep, point: Point) -> list[str]:
    """`dvc exp run` of one point; `++` also sets parameters that have their default so far."""
    settings = [word for change in point.changes for word in ("-S", f"++{change}")]
    return [*DVC, "exp", "run", "--temp", "--force", "--name", point.name, *settings, sweep.target]


def table(sweep: Sweep) -> list[dict[str, Any]]:
    """One row per point that is done: name, changed parameters, metrics as `dvc exp show` has them."""
    texts: list[str] = []
    if process.run([*DVC, "exp", "show", "--json"], cwd=sweep.root, line=texts.append) != 0:
        return []
    found = json.loads(next((text for text in reversed(texts) if text.startswith("[")), "[]"))
    data: dict[str, Any] = {}
    for baseline in found:
        for made in baseline.get("experiments") or []:
            data[made["name"]] = made["revs"][0].get("data") or {}
    rows = []
    for point in sweep.points:
        if point.name in data:
            changed = {change.key.split(".", 2)[2]: change.after for change in point.changes}
            rows.append({"experiment": point.name, **changed, **_metrics(data[point.name], sweep.target)})
    return rows


def folders(root: Path) -> set[Path]:
    """The copies of the working tree that `dvc exp run --temp` has made and not removed."""
    return set((root / ".dvc" / "tmp" / "exps" / "standalone").glob("tmp*"))


def tidy(root: Path, before: set[Path]) -> None:
    """Remove the copies that a stopped sweep left; those of others were there before it."""
    for folder in folders(root) - before:
        shutil.rmtree(folder, ignore_errors=True)


def _points(root: Path, experiment: str, grid: Mapping[str, Sequence[Any]]) -> list[Point]:
    for key, values in grid.items():
        if not isinstance(values, list | tuple) or not values:
            raise DDError(f"expected a list of values for {key!r}, found {values!r}: write [1e-3, 1e-4]")
    count = 1
    for values in grid.values():
        count *= len(values)
    if not grid or count > LIMIT:
        raise DDError(f"expected a grid of 1 to {LIMIT} points, found {count if grid else 0}: give it fewer values")
    known = params.load(root)
    points = []
    for values in itertools.product(*grid.values()):
        overrides = [f"{key}={json.dumps(value)}" for key, value in zip(grid, values, strict=True)]
        changes = params.check(known, overrides, [experiment], keep_equal=True)
        short = "-".join(f"{key.rsplit('.', 1)[-1]}-{value}" for key, value in zip(grid, values, strict=True))
        points.append(Point(re.sub(r"[^A-Za-z0-9.]+", "-", f"{experiment}-{short}").strip("-."), tuple(changes)))
    if len({point.name for point in points}) != len(points):
        raise DDError("expected different points, found two of the same name: remove values that are given twice")
    return points


def _metrics(data: Mapping[str, Any], target: str) -> dict[str, Any]:
    """Numbers from the metrics files of the target's experiment."""
    name = target.split("@", 1)[1]
    numbers: dict[str, Any] = {}
    for file, body in (data.get("metrics") or {}).items():
        if name in Path(file).parts:
            flat = provenance.flat(body.get("data") or {})
            numbers |= {key: value for key, value in flat.items() if isinstance(value, int | float)}
    return numbers
