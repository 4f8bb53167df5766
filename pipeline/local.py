"""A whole run without a server: the stages in DVC's order, independent ones side by side."""

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from pipeline import params, process, stage
from pipeline.graph import Stage
from pipeline.prepare import Run
from pipeline.stage import Outcome
from pipeline.watch import Event, tell


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


def one(run: Run, node: Stage, fresh: bool) -> Outcome:
    """One stage with its events."""
    tell(Event(node.name, "started"))
    if fresh:
        outcome = stage.settled(node)
    else:
        outcome = stage.run(
            run.root,
            node,
            run.options,
            line=lambda text: tell(Event(node.name, "line", text)),
            progress=lambda count: tell(Event(node.name, "progress", count=count)),
        )
    tell(Event(node.name, "finished", outcome.message, outcome.kind))
    return outcome


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
