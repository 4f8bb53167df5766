"""`dd-cli doctor`: what this machine and this checkout have, what is missing, and how to get it."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

NEEDED = (
    "torch",
    "torchvision",
    "accelerate",
    "safetensors",
    "pyarrow",
    "clean-fid",
    "torch-fidelity",
    "dvc",
    "prefect",
)
OPTIONAL = {"transformers": "text to image: install the extra t2i", "lpips": "LPIPS loss: install the extra perceptual"}
FREE_GB = 5  # of the shipped experiments, caches included


@dataclass(frozen=True)
class Finding:
    """One line of the report. `missing` makes the exit status 1, `note` does not."""

    what: str
    state: Literal["ok", "note", "missing"]
    found: str
    do: str = ""


def doctor(json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Report what is missing and how to get it: versions, disk, data set, weights, DVC, accelerator."""
    from dd.config import project_root

    root = project_root()
    findings = [finding for check in CHECKS for finding in check(root)]
    if json:
        import json as json_module

        typer.echo(json_module.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        _print(findings)
    raise typer.Exit(1 if any(finding.state == "missing" for finding in findings) else 0)


def _print(findings: list[Finding]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("", no_wrap=True), Column("", no_wrap=True), "found", "to do", box=SIMPLE_HEAD)
    colours = {"ok": "green", "note": "yellow", "missing": "red"}
    for finding in findings:
        state = f"[{colours[finding.state]}]{finding.state}[/]"
        table.add_row(finding.what, state, finding.found, finding.do)
    Console().print(table)


def versions(_: Path) -> Iterator[Finding]:
    """Python and the packages."""
    python = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < (3, 11)
    yield Finding("python", "missing" if old else "ok", python, "use Python 3.11 or later" if old else "")
    for name in NEEDED:
        version = _version(name)
        yield Finding(name, "ok" if version else "missing", version or "not installed", "" if version else "make test")
    for name, why in OPTIONAL.items():
        version = _version(name)
        yield Finding(name, "ok" if version else "note", version or "not installed", "" if version else why)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def disk(root: Path) -> Iterator[Finding]:
    """Space and permission where results are written."""
    free = shutil.disk_usage(root).free / 1e9
    low = free < FREE_GB
    yield Finding("disk", "missing" if low else "ok", f"{free:.0f} GB free", f"free {FREE_GB} GB" if low else "")
    writable = os.access(root, os.W_OK)
    yield Finding(
        "folder",
        "ok" if writable else "missing",
        "writable" if writable else "read-only",
        "" if writable else f"chmod {root}",
    )


def project(root: Path) -> Iterator[Finding]:
    """params.yaml, git and DVC."""
    from dd.config import load_params
    from dd.errors import DDError
    from dd.system.git import START, git

    try:
        yield Finding("params.yaml", "ok", f"{len(load_params().experiments)} experiments")
    except DDError as error:
        yield Finding("params.yaml", "missing", str(error), "correct it")
    repositories = (
        (".git", START, git(root, "rev-parse", "--git-dir") is not None),  # maybe of a folder above
        (".dvc", "dvc init", (root / ".dvc").exists()),
    )
    for folder, command, there in repositories:
        yield Finding(
            f"{folder[1:]} repository",
            "ok" if there else "missing",
            "initialised" if there else "not initialised",
            command * (not there),
        )
    if shutil.which("git") is None:
        yield Finding("git", "missing", "no git command", "install git")
    if (root / ".dvc").exists():
        yield from _remote(root)


def _remote(root: Path) -> Iterator[Finding]:
    """Where `dvc pull` looks: a clone without one has what git holds, and that is enough to begin."""
    name = None
    for file in ("config", "config.local"):
        parser = configparser.ConfigParser(interpolation=None)
        with suppress(OSError, configparser.Error):
            parser.read_string((root / ".dvc" / file).read_text(encoding="utf-8"))
            name = parser.get("core", "remote", fallback=name)
    none = "none: nothing for `dvc pull`; what git holds is enough to begin"
    yield Finding("dvc remote", "ok" if name else "note", name or none, "" if name else "docs/team.md")


def weights(_: Path) -> Iterator[Finding]:
    """The zoo's files: those that ship, and those that the experiments name."""
    from dd.checkpoints import hub, zoo
    from dd.config import load_params
    from dd.errors import DDError

    try:
        known = zoo.entries()
        wanted = {e.teacher.name: e.teacher.path for e in load_params().experiments.values()}
        wanted |= {e.student: None for e in load_params().experiments.values() if e.student}
    except DDError as error:
        yield Finding("zoo", "missing", str(error), "correct it")
        return
    folder = zoo.index_file().parent
    lost = [f.path for e in known.values() if e.shipped for f in e.files() if not (folder / f.path).is_file()]
    shipped = sum(e.shipped for e in known.values())
    if lost:
        yield Finding("zoo", "missing", f"no zoo/{lost[0]}", "git checkout -- zoo")
    else:
        yield Finding(
            "zoo", "ok" if shipped else "missing", f"{shipped} entries ship", "" if shipped else "git checkout -- zoo"
        )
    for name, path in wanted.items():
        if name not in known:
            yield Finding(f"zoo {name}", "missing", "no such entry", "dd-cli zoo list")
        elif not known[name].shipped and path is None:
            here = hub.local_path(known[name].file.hub_file()).is_file()
            yield Finding(
                f"zoo {name}",
                "ok" if here else "note",
                "here" if here else "on the hub",
                f"dd-cli zoo fetch {name}" * (not here),
            )


def references(_: Path) -> Iterator[Finding]:
    """What the experiments are measured against."""
    from dd.config import load_params
    from dd.errors import DDError
    from dd.metrics.protocols import protocol

    try:
        wanted = {(e.evaluate.protocol, e.evaluate.reference) for e in load_params().experiments.values()}
        paths = {name: protocol(name).reference_path(own) for name, own in sorted(wanted, key=str)}
    except DDError as error:
        yield Finding("reference", "missing", str(error), "correct it")
        return
    for name, path in paths.items():
        here = path.is_file()
        how = "" if here else protocol(name).how_to_get
        yield Finding(f"reference {name}", "ok" if here else "note", "here" if here else f"no {path.name}", how)


def text_encoders(_: Path) -> Iterator[Finding]:
    """What text-to-image experiments encode their captions with."""
    from importlib.util import find_spec

    from dd.checkpoints import zoo
    from dd.config import load_params
    from dd.errors import DDError

    try:
        wanted = {e.teacher.name for e in load_params().experiments.values() if e.condition == "text"}
        encoders = sorted({zoo.entry(name, "teacher").text_encoder or "none" for name in wanted})
    except DDError:
        return  # the other checks say so
    for name in encoders:
        modules = ("transformers", "all_minilm_l6_v2") if name == "all-minilm-l6-v2" else ("transformers",)
        absent = [module for module in modules if find_spec(module) is None]
        found = f"{', '.join(absent)} not installed" if absent else "installed"
        how = 'pip install -c constraints.txt ".[text]"' if absent else ""
        yield Finding(f"text encoder {name}", "missing" if absent else "ok", found, how)


def data_set(root: Path) -> Iterator[Finding]:
    """Fashion-MNIST: only training the zoo again needs it."""
    packed = root / "zoo" / "data" / "fashion" / "train" / "images.npy"
    here = packed.is_file()
    yield Finding(
        "Fashion-MNIST",
        "ok" if here else "note",
        "here" if here else "not here (needed to train the zoo again)",
        "" if here else "make zoo",
    )


def accelerator(_: Path) -> Iterator[Finding]:
    """The cards, whether torch computes on them and computes right, and which driver its build wants; cores."""
    from dd.system.device import driver_version, nvidia_smi

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cores", "ok", str(cores))
    cards = nvidia_smi("name,memory.total")
    if not cards:
        yield Finding("accelerator", "note", "none", "the shipped experiments need none")
        return
    yield Finding("accelerator", "ok", "; ".join(cards))
    yield from _driver(driver_version() or "?")


def _driver(driver: str) -> Iterator[Finding]:
    """What this torch wants of the driver, and what it computes with it."""
    import torch

    from dd.bench.operations import operations
    from dd.system.device import cuda_problem, oldest_driver

    build = torch.version.cuda
    wants = f", built for CUDA {build}: wants driver {oldest_driver(build) or '?'} or later" if build else ""
    problem = cuda_problem()
    yield Finding(
        "driver", "missing" if problem else "ok", f"{driver}; torch {torch.__version__}{wants}", problem or ""
    )
    if problem:
        return
    for one in operations("cuda"):
        yield Finding(one.name, "missing" if one.problem else "ok", one.found, one.problem or "")


CHECKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    versions,
    disk,
    project,
    weights,
    references,
    text_encoders,
    data_set,
    accelerator,
)
