"""What a run is made from: the commit, the lock file, the parameters that are not the committed ones."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from dd.system.git import git
from pipeline.params import Change


def rows(root: Path, changes: Sequence[Change] = ()) -> list[dict[str, str]]:
    """`{"what": ..., "value": ...}` per fact, for a table; `changes` are this run's overrides."""
    facts = {
        "git revision": revision(root),
        "dvc.lock": lock_state(root),
        "machine": f"{platform.node()}, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {_version(name)}" for name in ("dd", "dvc", "prefect")),
    }
    table = [{"what": what, "value": value} for what, value in facts.items()]
    table += [{"what": "override", "value": f"{c.key}: {c.before} -> {c.after}"} for c in changes]
    differing = uncommitted(root)
    table += [{"what": "not as committed", "value": text} for text in differing]
    if not differing:
        table.append({"what": "parameters", "value": "as committed"})
    return table


def revision(root: Path) -> str:
    """The commit, and whether tracked files differ from it."""
    commit = git(root, "rev-parse", "HEAD")
    if commit is None:
        return "no commit yet"
    changed = git(root, "status", "--porcelain", "--untracked-files=no") or ""
    return f"{commit}{f' and {len(changed.splitlines())} changed files' if changed.strip() else ''}"


def lock_state(root: Path) -> str:
    """SHA-256 of dvc.lock, and whether it is the committed one."""
    path = root / "dvc.lock"
    if not path.is_file():
        return "none yet"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"sha256 {digest}" + (", not as committed" if dirty_lock(root) else "")


def dirty_lock(root: Path) -> bool:
    """Does dvc.lock differ from the commit (or is it new)?"""
    return bool((git(root, "status", "--porcelain", "--", "dvc.lock") or "").strip())


def warning(root: Path) -> str | None:
    """What a run should be told of before it begins, one line."""
    if not dirty_lock(root):
        return None
    return "dvc.lock differs from the commit: commit it, or the results of this run belong to no revision"


def uncommitted(root: Path) -> list[str]:
    """`experiments.x.distill.lr: 0.001 -> 0.002` for each parameter that differs from the committed file."""
    text = git(root, "show", "HEAD:./params.yaml")
    if text is None or not (root / "params.yaml").is_file():
        return []
    try:
        before, after = yaml.safe_load(text), yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return ["params.yaml: the committed file is not YAML"]
    old, new = flat(before), flat(after)
    keys = [key for key in [*old, *(k for k in new if k not in old)] if old.get(key) != new.get(key)]
    return [f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}" for key in keys]


def flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    if not isinstance(data, Mapping):
        return {prefix: data} if prefix else {}
    parts = [flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in data.items()]
    return {key: value for part in parts for key, value in part.items()}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "?"
