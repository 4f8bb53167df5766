"""Overrides of params.yaml (`distill.lr=1e-4`), checked as a whole before anything is written or run."""

import contextlib
import copy
import fcntl
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dd import config
from dd.errors import DDError
from dd.system.names import hint


@dataclass(frozen=True)
class Change:
    """One parameter (`experiments.NAME.distill.lr`), its value before and after; None before: it had its default."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}={_text(self.after)}"


def load(root: Path) -> dict[str, Any]:
    """params.yaml as plain data. Raises DDError."""
    path = root / "params.yaml"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DDError(f"expected params.yaml in {root}, found none: run from the root of the project") from None
    except yaml.YAMLError as error:
        raise DDError(f"expected YAML in params.yaml, found an error: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict) or not isinstance(data.get("experiments"), dict):
        raise DDError("expected `experiments:` with at least one name in params.yaml: see the README's example")
    return data


def check(
    params: Mapping[str, Any], overrides: Sequence[str], chosen: Sequence[str], keep_equal: bool = False
) -> list[Change]:
    """What the overrides would change, after the whole result was validated; `keep_equal`: also what is so already.

    An override is `KEY=VALUE`, the value in YAML. A key may name its experiment (`NAME.distill.lr`, with or without
    `experiments.` before it); without one it applies to every experiment in `chosen`. Raises DDError, one line.
    """
    new = copy.deepcopy(dict(params))
    changes = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip() or not text.strip():
            raise DDError(f"expected an override such as distill.lr=1e-4, found {override!r}")
        for experiment, path in _places(key.strip(), params["experiments"], chosen):
            section, before = _find(new["experiments"][experiment], path, override)
            after = _value(text, before)
            if isinstance(before, dict) or isinstance(after, dict):
                raise DDError(f"expected one value for {key.strip()}, found a section: override its values one by one")
            section[path[-1]] = after
            changes.append(Change(".".join(["experiments", experiment, *path]), before, after))
    if overrides:
        config.validate(new, "override")
    return [change for change in changes if keep_equal or change.before != change.after]


def apply(root: Path, changes: Sequence[Change]) -> None:
    """Write the changes into params.yaml, comments and order kept; the file is replaced as a whole."""
    if not changes:
        return
    from ruamel.yaml import YAML  # the round-trip parser that DVC itself uses

    path = root / "params.yaml"
    parser = YAML()
    parser.preserve_quotes = True
    parser.width = 4096
    data = parser.load(path.read_text(encoding="utf-8"))
    for change in changes:
        *sections, leaf = change.key.split(".")
        section = data
        for name in sections:
            section = section.setdefault(name, {})
        section[leaf] = change.after
    text = io.StringIO()
    parser.dump(data, text)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text.getvalue(), encoding="utf-8")
    os.replace(part, path)


@contextlib.contextmanager
def workspace(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the working tree for one run: many may share it, a run that changes params.yaml must be alone.

    Raises DDError at once if that is not so. The lock is the kernel's: it ends with the process that holds it.
    """
    with (folder / "workspace.lock").open("w") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = "another run works here" if alone else "a run with overrides works here"
            raise DDError(
                f"expected this working tree to be free, found that {reason}: wait for it, stop it, or use the sweep "
                "flow, which works in copies"
            ) from None
        yield


def _places(key: str, known: Mapping[str, Any], chosen: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(experiment, path below it) for each place that a key means."""
    steps = key.removeprefix("experiments.").split(".")
    if key.startswith("experiments.") and steps[0] not in known:
        raise DDError(f"expected an experiment in {key!r}, found {steps[0]!r}: {hint(steps[0], known, most=3)}")
    if steps[0] in known:
        places = [(steps[0], steps[1:])]
    else:
        places = [(experiment, steps) for experiment in chosen]
    if not all(path and all(path) for _, path in places):
        raise DDError(f"expected the name of a parameter such as distill.lr, found {key!r}")
    return places


def _find(section: Any, path: Sequence[str], override: str) -> tuple[dict[str, Any], Any]:
    """The section that holds the last name of a path, and the value there now (None: its default applies)."""
    for name in path[:-1]:
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
        if not isinstance(section, dict):
            raise DDError(f"expected a parameter, found {override!r}: {name!r} is a value and has nothing below it")
    return section, section.get(path[-1])


def _value(text: str, before: Any) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise DDError(f"expected a value in YAML, found {text!r}: quote it") from None
    if isinstance(value, str) and not isinstance(before, str):
        with contextlib.suppress(ValueError):  # YAML 1.1 reads 1e-4 (no dot) as text
            return float(value)
    return value


def _text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
