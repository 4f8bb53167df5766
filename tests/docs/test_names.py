"""Every command, module, target and file that a page or a message names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

from tests.helpers.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = ("dd", "stages", "pipeline", "zoo")
COMMAND = re.compile(r"\bdd-cli ((?:[a-z][a-z0-9-]*)(?: [a-z][a-z0-9-]*)?)")
TARGET = re.compile(r"(?:^|[`'\"(] ?|\$ )make (?!it\b)([a-z][a-z0-9-]+)\b", re.M)
MODULE = re.compile(r"python3? -m ((?:dd|stages|pipeline|zoo|tests)(?:\.\w+)*)")
NAME = re.compile(r"`((?:dd|stages|pipeline|zoo)(?:\.[A-Za-z_]\w*)+)`")
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


@cache
def commands() -> dict[str, set[str]]:
    """Commands of dd-cli, with the subcommands of groups."""
    from dd.cli.main import app

    found = get_command(app).commands  # type: ignore[attr-defined]
    return {name: set(getattr(command, "commands", ())) for name, command in found.items()}


@cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def texts(path: Path) -> list[str]:
    """A page as it is, or the strings of a Python file (docstrings and messages)."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return [text]
    return [
        node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant) and type(node.value) is str
    ]


def wrong_names(text: str) -> list[str]:
    wrong = []
    for words in COMMAND.findall(text):
        name, _, sub = words.partition(" ")
        known = commands().get(name)
        if known is None or (known and sub and sub not in known):
            wrong.append(f"dd-cli {words}")
    wrong += [f"make {name}" for name in TARGET.findall(text) if name not in targets()]
    wrong += [f"python -m {name}" for name in MODULE.findall(text) if not module_exists(name)]
    wrong += [name for name in NAME.findall(text) if not dotted_exists(name)]
    return wrong


def module_exists(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file() or name.endswith(".NAME")


def dotted_exists(name: str) -> bool:
    """A module, or a name that stands in one (`dd.flow.map.map_noise`), found in the text of its file."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            return all(re.search(rf"\b{re.escape(part)}\b", text) for part in parts[end:])
    return False


def files() -> list[Path]:
    return [*PAGES, *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]


def test_what_pages_and_messages_name_exists():
    found = [(path, name) for path in files() for text in texts(path) for name in wrong_names(text)]
    assert not [f"{path.relative_to(ROOT)}: {name}" for path, name in found]


def test_links_between_pages_lead_somewhere():
    wrong = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]
    assert not wrong


def test_the_tests_that_pages_name_exist():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs" / "cases.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    wrong = [
        f"{file}::{name}"
        for file, name in named
        if not (path := ROOT / "tests" / file).is_file() or f"def {name}(" not in path.read_text(encoding="utf-8")
    ]
    assert not wrong


@pytest.mark.parametrize(
    "text",
    ["run `dd-cli nonsense`", "`make install`", "python -m stages.nothing", "see `dd.flow.solver.evaluate_it`"],
)
def test_wrong_names_are_found(text: str):
    assert wrong_names(text)
