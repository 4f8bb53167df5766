"""The table of a run: a line a stage where there is no terminal, a live table where there is one."""

import io

import pytest
from rich.console import Console

from pipeline.events import Event
from pipeline.terminal.table import StageTable

EVENTS = [
    Event("a", "planned"),
    Event("b", "planned"),
    Event("a", "started"),
    Event("a", "line", "loss [0.5]"),
    Event("a", "progress", progress={"step": 1, "total": 2, "unit": "steps"}),
    Event("a", "finished", "ran in 2 s", "ran"),
]


def said(**options: bool) -> tuple[str, StageTable]:
    console = Console(file=io.StringIO(), width=100)
    with StageTable(console, **options) as table:
        for event in EVENTS:
            table(event)
    return console.file.getvalue(), table  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "lines"),
    [({}, ["a: ran in 2 s"]), ({"verbose": True}, ["a | loss [0.5]", "a: ran in 2 s"]), ({"quiet": True}, [])],
)
def test_plain_lines(options: dict[str, bool], lines: list[str]) -> None:
    assert said(**options)[0].splitlines() == lines


def test_the_table_has_every_stage_with_its_state_and_time() -> None:
    _, table = said()
    console = Console(file=io.StringIO(), width=100)
    console.print(table.table())
    head, first, second = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert head.split() == ["stage", "state", "time", "what", "it", "does"]
    assert first.split()[:2] == ["a", "ran"]
    assert "ran in 2 s" in first
    assert second.split() == ["b", "planned"]


def test_who_waits_for_the_accelerator_says_so() -> None:
    table = StageTable(Console(file=io.StringIO()))
    table(Event("a", "line", "waiting for the accelerator (b has it)"))
    assert table.rows["a"].text == "waiting for the accelerator (b has it)"
