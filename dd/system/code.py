"""Digests of the code behind a stage, so that DVC reruns a stage when what it computes may have changed, and only then.

A digest covers a file's syntax tree without docstrings; comments and layout are not part of the tree. Files are found
by following the imports of a stage's script, those inside functions included. Imports nothing heavy: this runs at every
`dvc repro`.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

CODE = Path(__file__).resolve().parents[2]  # the folder that holds dd/ and stages/
# What names, parses, logs, stores and loads: no stage's result follows from it.
PLUMBING = ("dd/api.py", "dd/config.py", "dd/errors.py", "dd/system/", "dd/cli/")


def digest(path: Path) -> str:
    """16 hex digits that change with what a Python file does, not with its comments, docstrings or layout."""
    tree = _without_docstrings(ast.parse(path.read_text(encoding="utf-8")))
    return hashlib.sha256(json.dumps(_plain(tree), separators=(",", ":")).encode()).hexdigest()[:16]


def digests(files: Iterable[Path], without: Iterable[str], root: Path = CODE) -> dict[str, str]:
    """Digest of every file behind some files, by its path below `root`.

    without: beginnings of paths whose code does not decide the result.
    """
    names = {path.relative_to(root).as_posix(): path for path in behind(files, root)}
    return {name: digest(path) for name, path in sorted(names.items()) if not name.startswith(tuple(without))}


def behind(files: Iterable[Path], root: Path = CODE) -> set[Path]:
    """The files and all others of the project that they import, directly or not."""
    found: set[Path] = set()
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        if path not in found and path != root / "dd" / "__init__.py":  # it offers the whole library to its users
            found.add(path)
            waiting += imports(path, root)
    return found


@cache
def imports(path: Path, root: Path = CODE) -> frozenset[Path]:
    """Files below `root` that a file's import statements name, wherever in the file they stand."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name in modules(node):
            base = root.joinpath(*name.split("."))
            packages = [folder / "__init__.py" for folder in (base, *base.parents) if folder != root]
            found |= {file for file in (base.with_suffix(".py"), *packages) if file.is_file() and root in file.parents}
    return frozenset(found - {path})


def modules(node: ast.AST) -> Iterator[str]:
    """Full names of what an import statement may mean; nothing for other nodes."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                del node.body[0]
    return tree


def _plain(node: Any) -> Any:
    """A tree as lists. `ast.dump` prints differently from one Python version to the next; empty fields are left out."""
    if isinstance(node, ast.AST):
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if value not in (None, []))
        return [type(node).__name__, *fields]
    if isinstance(node, list):
        return [_plain(one) for one in node]
    return node if isinstance(node, str | int | float | bool | None) else repr(node)
