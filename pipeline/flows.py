"""The Prefect flow over the DVC graph: every stage a task, its outcome the name of its state."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from dd.errors import DDError
from pipeline import artifacts, graph, local, params, provenance, stage
from pipeline import sweep as sweeps
from pipeline.checks import Run, check_run
from pipeline.events import Event, tell
from pipeline.graph import Stage
from pipeline.processes import process
from pipeline.servers import cancel, mark_crashed
from pipeline.stage import Kind, Options, Outcome

KEPT = "stopped; finished shards and checkpoints are kept and reused"
FINISHED: dict[Kind, str] = {"ran": "Ran", "restored": "Restored", "unchanged": "Unchanged"}


def choices(root: Path, single: bool = True) -> list[str]:
    """What the UI offers as targets: experiments, and groups and single stages; none if the files cannot be read."""
    try:
        names = list(yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))["experiments"])
        found = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return []
    if not single:
        return names
    stages = {name: body for name, body in found.items() if not body.get("do", body).get("always_changed")}
    return [
        *names,
        *stages,
        *(f"{group}@{name}" for group, body in stages.items() if "foreach" in body for name in names),
    ]


def _offer() -> dict[str, Any]:
    found = choices(graph.project())
    return {"items": {"type": "string", "enum": found}, "uniqueItems": True} if found else {}


def _offer_one() -> dict[str, Any]:
    found = choices(graph.project(), single=False)
    return {"enum": found} if found else {}


# What the form of the UI knows of each parameter beyond its type; the texts beside the fields come from the docstrings.
Targets = Annotated[list[str], Field(json_schema_extra=_offer())]
Choice = Annotated[str, Field(json_schema_extra=_offer_one())]
Overrides = Annotated[list[str], Field(examples=[["distill.lr=1e-4"]])]
Grid = Annotated[dict[str, list[Any]], Field(examples=[{"distill.lr": [1e-3, 3e-4]}])]
Limit = Annotated[int, Field(ge=1, le=64)]
Workers = Annotated[int, Field(ge=0, le=1024)]


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """A run of a terminal sees to its own state: cancelled from elsewhere, it stops; killed, it is marked.

    For a run of a server or worker its runner does both.
    """
    api, run = os.environ.get("PREFECT_API_URL"), runtime.flow_run.id
    if api is None or run is None or "PREFECT__FLOW_RUN_ID" in os.environ:
        yield
        return
    with mark_crashed.reported(api, str(run)), cancel.watched(api, str(run), process.stop_all):
        yield


def _run_name() -> str:
    chosen = runtime.flow_run.parameters.get("targets") or ["all"]
    return f"{', '.join(chosen)} at {(provenance.git(graph.project(), 'rev-parse', '--short', 'HEAD') or 'no commit')}"


_RUNNER: Any = ThreadPoolTaskRunner(max_workers=256)


@flow(name="experiments", flow_run_name=_run_name, task_runner=_RUNNER)
def experiments(
    targets: Targets = [],  # noqa: B006 - Prefect copies parameters and shows the default in its form
    force: bool = False,
    overrides: Overrides = [],  # noqa: B006
    pull: bool = False,
    accelerator_limit: Limit = 1,
    dask_workers: Workers = 0,
) -> State[Any]:
    """Bring experiments up to date: their DVC stages in order, independent ones side by side.

    The state says what came of it; a stage's state is named Ran, Restored or Unchanged. DVC decides which of the three.
    Cancelling, SIGTERM and SIGINT end every stage at once; finished shards and checkpoints are kept and reused.

    Args:
        targets: Experiments, groups (distill) or stages (distill@NAME), with what they need. Empty: everything.
        force: Run the stages even if nothing changed.
        overrides: distill.lr=1e-4 for all chosen experiments, NAME.distill.lr=1e-4 for one. Written to params.yaml.
        pull: Fetch what the DVC remote has instead of computing it.
        accelerator_limit: Stages that may use the accelerator of this machine at once.
        dask_workers: Dask workers of each trajectories stage, whose shards are then a run of their own; 0 for none.
    """
    process.allow()
    logger = get_run_logger()
    try:
        options = Options(
            force, pull, accelerator_limit, dask_workers, "pipeline.dask_shards:make" if dask_workers else ""
        )
        run = check_run(graph.project(), targets, overrides, options)
        with _watched(), params.workspace(stage.scratch(run.root), alone=bool(run.changes)):
            params.apply(run.root, run.changes)
            outcomes = _follow(run)
            if process.stopping.is_set():
                return Cancelled(message=KEPT)
            _publish(run, outcomes)
            return summary(outcomes)
    except DDError as error:
        logger.error("%s", error)
        return Failed(message=str(error))
    except KeyboardInterrupt:
        process.stop_all()
        return Cancelled(message=KEPT)
    except BaseException:
        process.stop_all()
        raise


@task(name="code", cache_policy=NO_CACHE, persist_result=False)
def run_quick(run: Run) -> State[Any]:
    """The first step: what DVC runs every time, the digests of the stages' code."""
    logger = get_run_logger()
    try:
        outcome = local.quick(run, lambda text: logger.info("%s", text))
    except process.StoppedError:
        return Cancelled(message="stopped")
    if outcome is None or outcome.ok:
        return Completed(name=FINISHED[outcome.kind if outcome else "unchanged"], message=outcome and outcome.message)
    logger.error("%s", outcome.message)
    return Failed(message=outcome.message)


@task(name="stage", task_run_name="{node.name}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(run: Run, node: Stage, fresh: bool) -> State[Any]:
    """One stage; `fresh` if DVC has said already that there is nothing to do."""
    logger = get_run_logger()
    try:
        outcome = local.one(run, node, fresh, lambda text: logger.info("%s", text), artifacts.Progress(node.name))
    except process.StoppedError:
        return Cancelled(message=f"{node.name} was stopped; what it had finished is kept and reused")
    if not outcome.ok:
        logger.error("%s", outcome.message)
        return Failed(message=outcome.message)
    artifacts.images(run.root, node)
    return Completed(name=FINISHED[outcome.kind], message=outcome.message)


@flow(name="sweep", flow_run_name="sweep of {experiment}", task_runner=_RUNNER)
def sweep(experiment: Choice, grid: Grid, jobs: Limit = 1) -> State[Any]:
    """Run a grid over the parameters of one experiment as DVC experiments; the working tree stays as it is.

    The points are `dvc exp run --temp`; the table of results is an artifact and the same as `dvc exp show`. Take a
    point over with `dvc exp apply NAME`.

    Args:
        experiment: The experiment whose parameters are varied.
        grid: Values per parameter, for example {"distill.lr": [1e-3, 3e-4]}; every combination is run.
        jobs: Points at once; each holds one of so many places on the accelerator.
    """
    process.allow()
    root = graph.project()
    before = sweeps.folders(root)
    try:
        ready = sweeps.check_sweep(root, experiment, grid, jobs)
        artifacts.provenance(provenance.rows(root))
        with _watched(), params.workspace(stage.scratch(root), alone=False):
            sweeps.begin(ready)
            futures = [run_point.submit(ready, point) for point in ready.points]
            for future in futures:
                future.wait()
            if process.stopping.is_set():
                return Cancelled(message="cancelled; the points that are done are kept")
            outcomes = [_point_outcome(point.name, f.state) for point, f in zip(ready.points, futures, strict=True)]
            artifacts.sweep(experiment, sweeps.table(ready))
            return summary(outcomes, "points")
    except DDError as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error))
    except BaseException as error:
        process.stop_all()
        sweeps.tidy(root, before)
        if isinstance(error, KeyboardInterrupt):
            return Cancelled(message="interrupted; the points that are done are kept")
        raise


@task(name="point", task_run_name="{point.name}", cache_policy=NO_CACHE, persist_result=False)
def run_point(ready: sweeps.Sweep, point: sweeps.Point) -> State[Any]:
    """One point of a sweep."""
    logger = get_run_logger()
    try:
        outcome = sweeps.run_point(ready, point, lambda text: logger.info("%s", text), artifacts.Progress(point.name))
    except process.StoppedError:
        return Cancelled(message=f"{point.name} was stopped")
    if not outcome.ok:
        logger.error("%s", outcome.message)
        return Failed(message=outcome.message)
    return Completed(name=FINISHED[outcome.kind], message=outcome.message)


def _follow(run: Run) -> list[Outcome]:
    """Submit the stages in DVC's order and wait for all of them."""
    logger = get_run_logger()
    for change in run.changes:
        logger.info("params.yaml: %s (was %s)", change, change.before)
    if warning := provenance.warning(run.root):
        logger.warning("%s", warning)
    artifacts.provenance(provenance.rows(run.root, run.changes))
    for name in ([stage.quick_name(run.quick)] if run.quick else []) + list(run.plan):
        tell(Event(name, "planned"))
    if run.quick:
        first = stage.quick_name(run.quick)
        state = run_quick.with_options(name=first, task_run_name=first)(run, return_state=True)
        if not state.is_completed():
            failed = _point_outcome(first, state)
            return [failed, *(stage.skipped(node, [first]) for node in run.plan.values())]
    fresh = frozenset() if run.options.force else stage.unchanged(run.root, run.plan, logger.info)
    if text := local.not_in_remote(run, fresh):
        logger.warning("%s", text)
    futures: dict[str, PrefectFuture[Any]] = {}
    for name, node in run.plan.items():
        named = run_stage.with_options(name=name)  # what the UI shows until the task starts
        needs = [futures[need] for need in node.needs]
        futures[name] = named.submit(run, node, name in fresh, wait_for=needs, return_state=False)
    for future in futures.values():
        future.wait()
    return [_outcome(run.plan[name], future.state) for name, future in futures.items()]


def _outcome(node: Stage, state: State[Any]) -> Outcome:
    if state.is_pending():  # NotReady: something that it needs has failed
        skipped = stage.skipped(node, node.needs)
        tell(Event(node.name, "finished", skipped.message, "skipped"))
        return skipped
    return _point_outcome(node.name, state)


def _point_outcome(name: str, state: State[Any]) -> Outcome:
    kind: Kind = next((kind for kind, named in FINISHED.items() if state.name == named), "failed")
    return Outcome(name, kind, state.message or f"{name}: {state.name}", 0.0)


def _publish(run: Run, outcomes: Sequence[Outcome]) -> None:
    done = [run.plan[outcome.stage] for outcome in outcomes if outcome.ok]
    with contextlib.suppress(OSError):
        artifacts.results(run.root, done)
        artifacts.report(run.root, done)


def summary(outcomes: Sequence[Outcome], what: str = "stages") -> State[Any]:
    """The flow's own state: `9 stages: 2 ran, 7 unchanged`, or what failed first."""
    kinds = {outcome.kind for outcome in outcomes}
    if "failed" in kinds:
        return Failed(message=stage.summary(outcomes, what))
    return Completed(
        name=next(name for kind, name in FINISHED.items() if kind in kinds), message=stage.summary(outcomes, what)
    )
