"""What `dd-cli images` does: writes the entries, runs one name's stages and no other's, and undoes all of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import yaml

from dd.checkpoints import zoo
from dd.config import load_params, project_root, validate
from dd.errors import DDError
from dd.system.files import write_text
from dd.system.git import demand_commit, demand_repository
from dd.system.yaml_blocks import insert, remove
from zoo.own.plan import Plan
from zoo.settings import load_settings

PATIENCE = 60.0  # seconds for what runs to save and end
GROUPS = ("datasets", "extractors", "references", "validations", "tokenizers", "teachers")


def known_folder(name: str) -> str | None:
    """The folder of a data set that is in zoo/params.yaml already; None if there is none of that name."""
    found = load_settings().datasets.get(name)
    return found.folder if found else None


def refuse_taken(name: str) -> None:
    """Raise DDError if an experiment or a network has that name."""
    if name in load_params().experiments:
        raise DDError(f"params.yaml has an experiment '{name}' already: choose another name")
    taken = [f"{name}{kind}" for kind in ("", "-extractor", "-tokenizer") if f"{name}{kind}" in zoo.entries()]
    if taken or (project_root() / "zoo" / name).exists():
        raise DDError(f"the zoo has {taken[0] if taken else f'a folder zoo/{name}'} already: choose another name")


def write(plan: Plan) -> None:
    """Both params.yaml with the plan's entries, comments kept. Checked before a byte is written."""
    plan.zoo()
    plan.experiment()
    root = project_root()
    zoo_file, file = root / "zoo" / "params.yaml", root / "params.yaml"
    zoo_text, text = zoo_file.read_text(encoding="utf-8"), file.read_text(encoding="utf-8")
    for group, entries in plan.zoo_blocks().items():
        for block in entries.values():
            zoo_text = insert(zoo_text, group, block, "zoo/params.yaml")
    text = insert(text, "experiments", plan.experiment_block(), "params.yaml")
    validate(yaml.safe_load(text))
    write_text(zoo_file, zoo_text)
    write_text(file, text)


def check_repository() -> None:
    """Raise DDError where a stage could not run: an unpacked archive is no repository, an empty one has no commit."""
    demand_repository(project_root())
    demand_commit(project_root())


def run(name: str) -> None:
    """Train what belongs to a name, register it, distil and evaluate; then its table. What is up to date is skipped.

    Raises DDError with the command that failed.
    """
    root = project_root()
    check_repository()
    dvc = (sys.executable, "-m", "dvc", "repro")
    _call(root, *dvc, f"zoo/dvc.yaml:teacher@{name}", f"zoo/dvc.yaml:reference@{name}")
    _call(root, sys.executable, "-m", "zoo.register", name)
    _call(root, *dvc, f"evaluate@{name}")
    _call(root, sys.executable, "-m", "dd.cli.main", "report", name)


def _call(root: Path, *command: str) -> None:
    if _supervised(root, command):
        what = " ".join(["python", *command[1:]] if command[0] == sys.executable else command)
        raise DDError(f"stopped at `{what}`: mend what it says above and give the same command again, it goes on there")


def _supervised(root: Path, command: tuple[str, ...]) -> int:
    """Exit status of a command in a session of its own, of which nothing outlives Ctrl-C.

    DVC waits for its stage, and a stage saves what it has: both get the time to.
    """
    # A shell starts what runs in its background with Ctrl-C ignored, and that would be handed on.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    child = subprocess.Popen(command, cwd=root, start_new_session=True, preexec_fn=heed)
    try:
        return child.wait()
    except BaseException:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, number)
                if _ended(child):
                    break
        raise


def _ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether every process of a child's session is gone, after PATIENCE seconds at most."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        child.poll()
        try:
            os.killpg(child.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def take_out(name: str, keep_results: bool) -> list[str]:
    """Everything of a name: entries, index, locks, data, networks, results. Returns what was removed, in words."""
    settings, root = load_settings(), project_root()
    if name not in settings.datasets and name not in load_params().experiments:
        raise DDError(f"no images '{name}' in zoo/params.yaml; there are {', '.join(_own_names()) or 'none'}")
    if name in _shipped():
        raise DDError(f"'{name}' ships with the project; only images of your own can be removed")
    members = {group: _members(group, name) for group in GROUPS}
    done = _edit(root / "zoo" / "params.yaml", [(group, entry) for group, names in members.items() for entry in names])
    done += _edit(root / "params.yaml", [("experiments", name)])
    names = sorted({name, *(entry for group in GROUPS for entry in members[group])})
    stages = [f"{stage}@{entry}" for entry in names for stage in _stages(root)]
    done += _edit(root / "zoo" / "dvc.lock", [("stages", stage) for stage in stages])
    done += _edit(root / "dvc.lock", [("stages", stage) for stage in stages])
    kinds = ("", "-extractor", "-reference", "-tokenizer", "-dd")
    done += [f"zoo/index.yaml: {entry}" for entry in zoo.unregister(*(f"{n}{kind}" for n in names for kind in kinds))]
    return done + _delete(root, name, names, keep_results)


def _members(group: str, name: str) -> list[str]:
    """Entries of a group of zoo/params.yaml that were made from a data set."""
    settings = load_settings()
    if group == "datasets":
        return [name] if name in settings.datasets else []
    if group == "teachers":
        return [n for n, made in settings.teachers.items() if settings.tokenizers[made.tokenizer].dataset == name]
    return [entry for entry, made in getattr(settings, group).items() if made.dataset == name]


def _own_names() -> list[str]:
    return [name for name, made in load_settings().datasets.items() if made.source == "folder"]


def _shipped() -> set[str]:
    shipped = load_settings(project_root() / "zoo" / "shipped" / "params.yaml")
    return {entry for group in GROUPS for entry in getattr(shipped, group)}


def _stages(root: Path) -> list[str]:
    names: list[str] = []
    for file in (root / "dvc.yaml", root / "zoo" / "dvc.yaml"):
        names += yaml.safe_load(file.read_text(encoding="utf-8"))["stages"]
    return names


def _edit(file: Path, entries: list[tuple[str, str]]) -> list[str]:
    if not file.is_file():
        return []
    before = text = file.read_text(encoding="utf-8")
    done = []
    for section, entry in entries:
        shorter = remove(text, section, entry)
        if shorter != text:
            text = shorter
            place = file.relative_to(project_root()).as_posix()
            done.append(f"{place}: {section}.{entry}" if section != "stages" else "")
    if text != before:
        write_text(file, text)
    return [line for line in done if line]


def _delete(root: Path, name: str, names: list[str], keep_results: bool) -> list[str]:
    folders = [root / "zoo" / entry for entry in names]
    folders += sorted(path for entry in names for path in (root / "zoo" / "work").glob(f"{entry}-{16 * '[0-9a-f]'}"))
    folders += [root / "work" / kind / name for kind in ("rates", "trackers")]
    folders += [file.parent for file in (root / "work").glob(f"*/{name}.owner")]
    folders += [root / "zoo" / "data" / name, root / "data" / name, root / "models" / name]
    folders += [] if keep_results else [root / "results" / name]
    done = []
    for folder in folders:
        if folder.is_dir():
            shutil.rmtree(folder)
            done.append(f"{folder.relative_to(root).as_posix()}/")
    digest = root / "zoo" / "data" / "folders" / f"{name}.txt"
    digest.unlink(missing_ok=True)
    report = root / "report" / "report.html"
    shown = report.is_file() and re.search(rf"\b{re.escape(name)}\b", report.read_text(encoding="utf-8"))
    if shown and not keep_results:
        _call(root, sys.executable, "-m", "stages.report")
        done.append("report/: made anew without it")
    return done
