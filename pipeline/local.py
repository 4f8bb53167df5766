"""Whole runs without a server: the stages in DVC's order, independent ones side by side; the points of a sweep."""

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from typing import Any

from pipeline import params, remote, stage
from pipeline import sweep as sweeps
from pipeline.checks import Run
from pipeline.events import Event, tell
from pipeline.graph import Stage
from pipeline.processes import process
from pipeline.stage import Line, Outcome, Progress


def execute(run: Run, say: Line = lambda _: None) -> list[Outcome]:
    """Run the stages and return their outcomes in the order of the plan; the listeners of events.py see all of it.

    `say` gets what a person should know before the stages run.

    A failed stage skips what needs it; the others go on. On any exception in this thread (Ctrl-C) everything that
    runs is stopped first.
    """
    process.allow()
    with params.workspace(stage.scratch(run.root), alone=bool(run.changes)):
        params.apply(run.root, run.changes)
        for name in ([stage.quick_name(run.quick)] if run.quick else []) + list(run.plan):
            tell(Event(name, "planned"))
        with ThreadPoolExecutor(max_workers=len(run.plan) or 1, thread_name_prefix="stage") as pool:
            try:
                first = quick(run)
                if first and not first.ok:
                    return [first, *(stage.skipped(node, [first.stage]) for node in run.plan.values())]
                fresh = frozenset() if run.options.force else stage.unchanged(run.root, run.plan, lambda _: None)
                if text := not_in_remote(run, fresh):
                    say(text)
                return _schedule(run, fresh, pool)
            except BaseException:
                process.stop_all()
                raise


def not_in_remote(run: Run, fresh: frozenset[str]) -> str | None:
    """One line about what a run that pulls has to compute all the same."""
    waiting = {name: node for name, node in run.plan.items() if name not in fresh}
    return remote.announcement(run.root, waiting) if run.options.pull and waiting else None


def quick(run: Run, line: Line = lambda _: None) -> Outcome | None:
    """The run's first step, None if it has none; the listeners of events.py are told. Raises process.StoppedError."""
    if not run.quick:
        return None
    name = stage.quick_name(run.quick)

    def each(text: str) -> None:
        tell(Event(name, "line", text))
        line(text)

    tell(Event(name, "started"))
    outcome = stage.run_quick(run.root, run.quick, each)
    tell(Event(name, "finished", outcome.message, outcome.kind))
    return outcome


def one(
    run: Run, node: Stage, fresh: bool, line: Line = lambda _: None, progress: Progress = lambda _: None
) -> Outcome:
    """One stage; the listeners of events.py are told. `fresh` if DVC has said already that there is nothing to do.

    Raises process.StoppedError.
    """

    def each(text: str) -> None:
        tell(Event(node.name, "line", text))
        line(text)

    def report(state: dict[str, Any]) -> None:
        tell(Event(node.name, "progress", progress=state))
        progress(state)

    tell(Event(node.name, "started"))
    try:
        outcome = stage.settled(node) if fresh else stage.run(run.root, node, run.options, each, report)
    except process.StoppedError as error:
        tell(Event(node.name, "finished", str(error), "stopped"))
        raise
    tell(Event(node.name, "finished", outcome.message, outcome.kind))
    return outcome


def sweep(ready: sweeps.Sweep) -> list[Outcome]:
    """Run the points of a sweep, `jobs` at once; on any exception in this thread everything is stopped first."""
    process.allow()
    before = sweeps.folders(ready.root)
    with params.workspace(stage.scratch(ready.root), alone=False):
        sweeps.begin(ready)
        try:
            with ThreadPoolExecutor(max_workers=ready.jobs, thread_name_prefix="point") as pool:
                futures = [pool.submit(sweeps.run_point, ready, point) for point in ready.points]
                try:
                    return [future.result() for future in futures]
                except BaseException:
                    process.stop_all()
                    raise
        except BaseException:
            sweeps.tidy(ready.root, before)
            raise


def _schedule(run: Run, fresh: frozenset[str], pool: ThreadPoolExecutor) -> list[Outcome]:
    """Every stage as soon as those that it needs are done; one whose needs failed is skipped."""
    sorter = TopologicalSorter({name: node.needs for name, node in run.plan.items()})
    sorter.prepare()
    outcomes: dict[str, Outcome] = {}
    running: dict[Future[Outcome], str] = {}
    while sorter.is_active():
        for name in sorter.get_ready():
            node = run.plan[name]
            if missing := [need for need in node.needs if not outcomes[need].ok]:
                outcomes[name] = stage.skipped(node, missing)
                tell(Event(name, "finished", outcomes[name].message, "skipped"))
                sorter.done(name)
            else:
                running[pool.submit(one, run, node, name in fresh)] = name
        if running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                outcomes[name] = future.result()
                sorter.done(name)
    return [outcomes[name] for name in run.plan]
