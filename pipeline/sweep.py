"""A grid over the parameters of one experiment, each point a DVC experiment in a copy of the working tree.

Each point is `dvc --wait-for-lock exp run --temp`; docs/prefect.md says what else DVC has and why not that.
"""

import itertools
import json
import math
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dd.errors import DDError
from dd.system.names import hint
from pipeline import graph, params, provenance, stage
from pipeline.events import Event, tell
from pipeline.processes import process
from pipeline.stage import DVC, Line, Outcome, Progress

LIMIT = 256  # points of one sweep; more is a typing error more often than a wish


@dataclass(frozen=True)
class Point:
    """One experiment: its name in `dvc exp show`, and what it changes."""

    name: str
    changes: tuple[params.Change, ...]

    @property
    def values(self) -> dict[str, Any]:
        """`{"distill.lr": 0.001}`: the experiment's name left out."""
        return {change.key.split(".", 2)[2]: change.after for change in self.changes}

    @property
    def text(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.values.items())


@dataclass(frozen=True)
class Sweep:
    """A checked sweep: what may run now."""

    root: Path
    target: str
    points: tuple[Point, ...]
    jobs: int
    quick: frozenset[str] = frozenset()  # stages that run every time and say nothing about a point


def check_sweep(root: Path, experiment: str, grid: Mapping[str, Sequence[Any]], jobs: int) -> Sweep:
    """Check a sweep and list its points. Raises DDError, one line, before anything runs."""
    plan = graph.read(root)
    if experiment not in graph.experiments(plan):
        near = hint(experiment, graph.experiments(plan), most=3)
        raise DDError(f"expected the name of an experiment, found {experiment!r}: {near}")
    if jobs < 1:
        raise DDError(f"expected at least one point at a time, found jobs={jobs}: use 1")
    if provenance.git(root, "rev-parse", "HEAD") is None:
        raise DDError("expected a commit for the experiments to start from, found none: commit the project first")
    target = f"evaluate@{experiment}"
    if target not in plan:
        raise DDError(f"expected a stage {target!r} to end each point with, found none in dvc.yaml")
    quick = frozenset(graph.split(plan)[0])
    return Sweep(root, target, tuple(_points(root, experiment, grid)), jobs, quick)


def parse(words: Sequence[str]) -> dict[str, list[Any]]:
    """`distill.lr=1e-3,3e-4` is {"distill.lr": ["1e-3", "3e-4"]}: YAML with commas between. Raises DDError."""
    grid: dict[str, list[Any]] = {}
    for word in words:
        key, _, text = word.partition("=")
        if not key.strip() or not text.strip():
            raise DDError(f"expected a parameter and its values such as distill.lr=1e-3,3e-4, found {word!r}")
        if key.strip() in grid:
            raise DDError(
                f"expected each parameter once, found {key.strip()!r} twice: write all its values in one place"
            )
        try:
            grid[key.strip()] = yaml.safe_load(f"[{text}]")
        except yaml.YAMLError:
            raise DDError(f"expected values with commas between them, found {text!r}: close its brackets") from None
    return grid


def begin(sweep: Sweep) -> None:
    """Forget earlier experiments of the same names, and tell the listeners of events.py which points there will be.

    `dvc exp run --force` would replace them too, but it also runs every stage again, changed or not.
    """
    names: list[str] = []
    process.run([*DVC, "exp", "list", "--name-only"], cwd=sweep.root, line=names.append)
    if old := [point.name for point in sweep.points if point.name in names]:
        process.run([*DVC, "exp", "remove", *old], cwd=sweep.root, line=lambda _: None)
    for point in sweep.points:
        tell(Event(point.name, "planned"))


def run_point(sweep: Sweep, point: Point, line: Line = lambda _: None, progress: Progress = lambda _: None) -> Outcome:
    """Run one point in one of the sweep's places; the listeners of events.py are told. Raises process.StoppedError."""
    start = time.monotonic()
    last, ran = "", False

    def each(text: str) -> None:
        nonlocal last, ran
        found = re.match(r"Running stage '(.+)'", text)
        ran = ran or (found is not None and found[1] not in sweep.quick)
        if text.strip() and not text.startswith(("> ", "ERROR: failed to reproduce")):
            last = text.strip()
        tell(Event(point.name, "line", text))
        line(text)

    def report(state: dict[str, Any]) -> None:
        tell(Event(point.name, "progress", progress=state))
        progress(state)

    tell(Event(point.name, "started"))
    env = {"DD_ROOT": ""}  # the stages work in the copy, wherever the flow does
    try:
        status = stage.dvc(sweep.root, command(sweep, point), point.name, sweep.jobs, each, report, env)
    except process.StoppedError as error:
        tell(Event(point.name, "finished", str(error), "stopped"))
        raise
    seconds = time.monotonic() - start
    if status:
        outcome = Outcome(point.name, "failed", f"{point.name} failed: {last}", seconds)
    else:
        outcome = Outcome(point.name, "ran" if ran else "restored", f"{point.text} in {seconds:.1f} s", seconds)
    tell(Event(point.name, "finished", outcome.message, outcome.kind))
    return outcome


def command(sweep: Sweep, point: Point) -> list[str]:
    """`dvc exp run` of one point; `++` also sets parameters that have their default so far."""
    settings = [word for change in point.changes for word in ("-S", f"++{change}")]
    return [*DVC, "exp", "run", "--temp", "--name", point.name, *settings, sweep.target]


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
            rows.append({"experiment": point.name, **point.values, **_metrics(data[point.name], sweep.target)})
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
    count = math.prod(map(len, grid.values())) if grid else 0
    if not 1 <= count <= LIMIT:
        advice = "name a parameter, distill.lr=1e-3,3e-4" if count == 0 else "give it fewer values"
        raise DDError(f"expected a grid of 1 to {LIMIT} points, found {count}: {advice}")
    known = params.load(root)
    points = []
    for values in itertools.product(*grid.values()):
        overrides = [f"{key}={json.dumps(value)}" for key, value in zip(grid, values, strict=True)]
        changes = params.check(known, overrides, [experiment], keep_equal=True)
        if other := next((c.key for c in changes if c.key.split(".")[1] != experiment), None):
            raise DDError(f"expected parameters of {experiment}, found {other!r}: sweep one experiment at a time")
        points.append(Point(_name(experiment, changes), tuple(changes)))
    if len({point.name for point in points}) != len(points):
        raise DDError("expected different points, found two of the same name: remove values that are given twice")
    return points


def _name(experiment: str, changes: Sequence[params.Change]) -> str:
    """`toy-lr-0.001-steps-4`: a git reference may hold these characters."""
    short = "-".join(f"{change.key.rsplit('.', 1)[-1]}-{change.after}" for change in changes)
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{experiment}-{short}").strip("-.")


def _metrics(data: Mapping[str, Any], target: str) -> dict[str, Any]:
    """From the metrics files of the target's experiment: numbers, and the `value` of each sampler."""
    name = target.split("@", 1)[1]
    numbers: dict[str, Any] = {}
    for file, body in (data.get("metrics") or {}).items():
        if name in Path(file).parts:
            for key, value in (body.get("data") or {}).items():
                numbers[key] = value.get("value") if isinstance(value, Mapping) else value
    return {key: value for key, value in numbers.items() if isinstance(value, int | float)}
