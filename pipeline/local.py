"""Whole runs without a server: the stages in DVC's order, independent ones side by side; the points of a sweep."""

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from pipeline import params, stage
from pipeline import sweep as sweeps
from pipeline.checks import Run
from pipeline.events import Event, tell
from pipeline.graph import Stage
from pipeline.processes import process
from pipeline.stage import Line, Outcome, Progress


def execute(run: Run) -> list[Outcome]:
    """Run the stages and return their outcomes in the order of the plan; the listeners of watch.py see all of it.

    A failed stage skips what needs it; the others go on. On any exception in this thread (Ctrl-C) everything that
    runs is stopped first.
    """
    process.allow()
    with params.workspace(stage.scratch(run.root), alone=bool(run.changes)):
        params.apply(run.root, run.changes)
        for name in run.plan:
            tell(Event(name, "planned"))
        fresh = frozenset() if run.options.force else stage.unchanged(run.root, run.plan, lambda _: None)
        with ThreadPoolExecutor(max_workers=len(run.plan), thread_name_prefix="stage") as pool:
            try:
                return _schedule(run, fresh, pool)
            except BaseException:
                process.stop_all()
                raise


def one(
    run: Run, node: Stage, fresh: bool, line: Line = lambda _: None, progress: Progress = lambda _: None
) -> Outcome:
    """One stage; the listeners of watch.py are told. `fresh` if DVC has said already that there is nothing to do.

    Raises process.StoppedError.
    """

    def each(text: str) -> None:
        tell(Event(node.name, "line", text))
        line(text)

    def count(state: dict[str, Any]) -> None:
        tell(Event(node.name, "progress", count=state))
        progress(state)

    tell(Event(node.name, "started"))
    try:
        outcome = stage.settled(node) if fresh else stage.run(run.root, node, run.options, each, count)
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
    outcomes: dict[str, Outcome] = {}
    running: dict[Future[Outcome], str] = {}
    todo = dict(run.plan)
    while todo or running:
        for name, node in list(todo.items()):
            if not all(need in outcomes for need in node.needs):
                continue
            del todo[name]
            if missing := [need for need in node.needs if not outcomes[need].ok]:
                outcomes[name] = stage.skipped(node, missing)
                tell(Event(name, "finished", outcomes[name].message, "skipped"))
            else:
                running[pool.submit(one, run, node, name in fresh)] = name
        if running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                outcomes[running.pop(future)] = future.result()
    return [outcomes[name] for name in run.plan]
