"""Everything that is checked before a run begins, the same with and without a server."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from dd.errors import DDError, install
from pipeline import graph, params
from pipeline.graph import Plan
from pipeline.remote import check_remote
from pipeline.stage import Options


@dataclass(frozen=True)
class Run:
    """A run that may start: its stages in order, and what it would change in params.yaml.

    `quick` are the stages of its first step (see graph.split).
    """

    root: Path
    plan: Plan
    options: Options
    changes: tuple[params.Change, ...] = ()
    quick: Plan = field(default_factory=dict)


def check_run(root: Path, targets: Sequence[str], overrides: Sequence[str], options: Options) -> Run:
    """Read the graph, choose the stages, check the numbers and the overrides. Raises DDError, one line."""
    if options.accelerator_limit < 1:
        raise DDError(
            f"expected an accelerator_limit of 1 or more stages at once, found {options.accelerator_limit}: use 1"
        )
    if options.dask_workers < 0:
        raise DDError(f"expected dask_workers of 0 (none) or more, found {options.dask_workers}")
    if options.dask_workers and find_spec("prefect_dask") is None:
        raise DDError(f"expected prefect-dask for dask_workers, found none: {install('dask')}, or use 0")
    if options.pull:
        check_remote(root)
    plan = graph.choose(graph.read(root), targets)
    changes: tuple[params.Change, ...] = ()
    if overrides:
        changes = tuple(params.check(params.load(root), overrides, graph.experiments(plan)))
    quick, rest = graph.split(plan)
    return Run(root, rest, options, changes, quick)
