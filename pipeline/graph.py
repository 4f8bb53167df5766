"""The stages of dvc.yaml and their order, read from DVC itself; which of them a run is about."""

import functools
import graphlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dd.errors import DDError
from dd.system.git import NO_REPOSITORY
from dd.system.names import hint


@dataclass(frozen=True)
class Stage:
    """One node of the graph.

    `name` is what `dvc repro -s` takes (`distill@llamagen-fashion`, `report`, `zoo/dvc.yaml:train`); `needs` are the
    names of the stages whose outputs it reads; `outs` are paths relative to the repository. A stage whose dvc.yaml
    entry says `meta: {accelerator: true}` takes one of the run's places on the accelerator; `always` is what it calls
    `always_changed`; `params` are the keys of params.yaml that it depends on.
    """

    name: str
    needs: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()
    accelerator: bool = False
    always: bool = False
    params: tuple[str, ...] = ()

    @property
    def elsewhere(self) -> bool:
        """Is it from another file than the root's dvc.yaml (`zoo/dvc.yaml:train@x`, `images.dvc`)?"""
        return ":" in self.name or self.name.endswith(".dvc")

    @property
    def group(self) -> str:
        """The part before the `@` of a foreach stage; the whole name of any other."""
        return self.name.split("@", 1)[0]

    @property
    def experiment(self) -> str | None:
        """The part after the `@`, None for a stage of its own or of another dvc.yaml."""
        return self.name.split("@", 1)[1] if "@" in self.name and not self.elsewhere else None


def project() -> Path:
    """The root of the project: $DD_ROOT, else the nearest folder above the working directory that has a .dvc."""
    if root := os.environ.get("DD_ROOT"):
        return Path(root).resolve()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)


Plan = dict[str, Stage]  # in an order in which every stage comes after those it needs


def read(root: Path) -> Plan:
    """All stages of the repository at `root`.

    Raises DDError, one line, if there is no git or DVC repository, if dvc.yaml, dvc.lock or params.yaml cannot be read,
    or if the stages form a cycle.
    """
    if not (root / ".dvc").is_dir():
        raise DDError(
            f"expected a DVC repository, found no .dvc in {root}: run `dvc init` there or change to the project"
        )
    if not (root / "dvc.yaml").is_file():
        raise DDError(f"expected stages, found no dvc.yaml in {root}: run from the root of the project")
    refuse_conflicts(root / "dvc.lock")
    return dict(_read(root, _stamp(root)))


def _stamp(root: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever one of the files does that the graph is made from."""
    files = [*root.glob("dvc.yaml"), *root.glob("params.yaml"), *root.glob("dvc.lock"), *root.glob("*/dvc.yaml")]
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(files))


@functools.lru_cache(maxsize=4)  # a command checks its input, then the flow in the same process does
def _read(root: Path, stamp: tuple[tuple[str, int, int], ...]) -> Plan:
    from dvc.exceptions import DvcException, NotDvcRepoError  # half a second of imports: only when a run needs them
    from dvc.repo import Repo
    from dvc.scm import SCMError

    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
            found = {_name(stage): _stage(root, stage, graph.successors(stage)) for stage in graph}
    except PermissionError as error:
        if error.filename and Path(error.filename).is_relative_to(root):
            raise  # a checkout that cannot be written
        raise DDError(
            f"no permission ({error.filename}), where DVC keeps its locks: set DVC_SITE_CACHE_DIR to a folder of yours"
        ) from error
    except NotDvcRepoError as error:
        raise DDError(f"{_one_line(error)}: run `git init` and `dvc init` in {root}") from error
    except SCMError as error:
        raise DDError(NO_REPOSITORY.format(root=root)) from error
    except (DvcException, ValueError) as error:
        raise DDError(f"DVC cannot read the pipeline: {_one_line(error)}; mend it until `dvc dag` works") from error
    if not found:
        raise DDError(f"expected at least one stage, found none in {root / 'dvc.yaml'}: is `experiments` empty?")
    return in_order(found)


def refuse_conflicts(lock: Path) -> None:
    """A dvc.lock with the marks of an unfinished merge is refused by name; DVC's own error is a page of YAML."""
    if not lock.is_file():
        return
    for number, line in enumerate(lock.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith(("<<<<<<< ", ">>>>>>> ")):
            raise DDError(
                f"expected a clean dvc.lock, found a merge conflict in line {number}: run "
                "`python -m pipeline.merge_lock`, then `git add dvc.lock`, and run again"
            )


def in_order(stages: Mapping[str, Stage]) -> Plan:
    """Sorted so that dependencies come first."""
    sorter = graphlib.TopologicalSorter({name: stage.needs for name, stage in stages.items()})
    try:
        return {name: stages[name] for name in sorter.static_order()}
    except graphlib.CycleError as error:
        loop = " -> ".join(reversed(error.args[1]))
        raise DDError(
            f"expected stages without a cycle, found {loop}: remove one of these dependencies in dvc.yaml"
        ) from None


def split(plan: Plan) -> tuple[Plan, Plan]:
    """The stages that DVC runs every time and that need no other (digests of code); the others, without those needs.

    The former are one quick step before a run: only after it can DVC say what else has changed.
    """
    quick = {name: stage for name, stage in plan.items() if stage.always and not stage.needs}
    rest = {
        name: replace(stage, needs=tuple(need for need in stage.needs if need not in quick))
        for name, stage in plan.items()
        if name not in quick
    }
    return quick, rest


def choose(plan: Plan, targets: Sequence[str]) -> Plan:
    """The stages named by `targets` and everything they need; for no targets those of the root's dvc.yaml.

    A target is a stage (`distill@NAME`, `report`), a group of a foreach (`distill`: all its stages), or an experiment
    (`NAME`: all its stages). Raises DDError with the nearest names for any other.
    """
    chosen: set[str] = set()
    for stage in () if targets else plan.values():
        if not stage.elsewhere:
            _with_needs(stage.name, plan, chosen)
    for target in targets:
        named = [stage.name for stage in plan.values() if target in (stage.name, stage.group, stage.experiment)]
        if not named:
            raise DDError(
                f"expected an experiment, a stage or a group of stages, found {target!r}: {near(target, plan)}"
            )
        for name in named:
            _with_needs(name, plan, chosen)
    return {name: stage for name, stage in plan.items() if name in chosen}


def experiments(plan: Plan) -> list[str]:
    """The experiments that the plan's stages belong to, in their order."""
    return list(dict.fromkeys(stage.experiment for stage in plan.values() if stage.experiment))


def names(plan: Plan) -> list[str]:
    """Everything that `choose` takes: experiments, then groups, then stages."""
    return list(dict.fromkeys([*experiments(plan), *(stage.group for stage in plan.values()), *plan]))


def near(wrong: str, plan: Plan) -> str:
    """What the user may have meant."""
    return hint(wrong, names(plan), listed=[*experiments(plan), *(s.group for s in plan.values())], most=3)


def _with_needs(name: str, plan: Plan, chosen: set[str]) -> None:
    if name not in chosen:
        chosen.add(name)
        for need in plan[name].needs:
            _with_needs(need, plan, chosen)


def _name(stage: Any) -> str:
    """DVC's address of a stage from the root; its own `addressing` depends on the working directory."""
    path, name = str(stage.path_in_repo), getattr(stage, "name", None)
    if not name:
        return path
    return name if path == "dvc.yaml" else f"{path}:{name}"


def _stage(root: Path, stage: Any, needs: Iterable[Any]) -> Stage:
    meta = stage.meta if isinstance(stage.meta, dict) else {}
    return Stage(
        name=_name(stage),
        needs=tuple(_name(need) for need in needs),
        outs=tuple(os.path.relpath(out.fs_path, root) for out in stage.outs if out.protocol == "local"),
        accelerator=bool(meta.get("accelerator", False)),
        always=bool(stage.always_changed),
        params=tuple(key for dep in stage.deps for key in (getattr(dep, "params", None) or ())),
    )


def _one_line(error: BaseException) -> str:
    """A DVC exception and its cause in one line."""
    texts = [str(error)]
    if error.__cause__ is not None and str(error.__cause__) not in texts[0]:
        texts.append(str(error.__cause__))
    return "; ".join(" ".join(text.split()) for text in texts if text).rstrip(".")
