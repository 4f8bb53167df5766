"""Merges two branches' dvc.lock stage by stage.

    python -m pipeline.merge_lock [BASE OURS THEIRS]

A stage that one side alone has changed is taken from that side. One that both have changed differently is left out: the
next run restores it from the run cache, or computes it. Without arguments the conflict that git has left in ./dvc.lock
is resolved; with three files it is a merge driver of git (docs/team.md), which writes OURS.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from dd.errors import DDError
from dd.system.files import write_text
from dd.system.git import demand_git, git

Lock = dict[str, Any]


def merge(base: Lock, ours: Lock, theirs: Lock) -> tuple[Lock, list[str]]:
    """The merged content and the stages that were left out."""
    sides = [side.get("stages") or {} for side in (base, ours, theirs)]
    stages, left_out = {}, []
    for name in dict.fromkeys([*sides[1], *sides[2]]):
        old, mine, other = (side.get(name) for side in sides)
        if mine == other or other == old:
            chosen = mine
        elif mine == old:
            chosen = other
        else:
            chosen = None
            left_out.append(name)
        if chosen is not None:
            stages[name] = chosen
    return {"schema": ours.get("schema", "2.0"), "stages": stages}, left_out


def parse(text: str, source: str) -> Lock:
    """The content of a dvc.lock; an empty one for a side that has none."""
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        raise DDError(f"expected a dvc.lock in {source}, found no YAML: check that side's commit") from None
    if not isinstance(found, dict):
        raise DDError(f"expected a dvc.lock in {source}, found something else: check that side's commit")
    return found


def main(arguments: list[str]) -> str:
    """Merge and write. Returns what was done, in one line."""
    if arguments:
        texts, target = [Path(name).read_text(encoding="utf-8") for name in arguments], Path(arguments[1])
        names = arguments
    else:
        root, target, names = Path.cwd(), Path("dvc.lock"), ["the common ancestor", "ours", "theirs"]
        demand_git(root, "show", ":2:./dvc.lock", else_do="run this where git left dvc.lock in conflict")
        texts = [git(root, "show", f":{number}:./dvc.lock") or "" for number in (1, 2, 3)]
    base, ours, theirs = (parse(text, name) for text, name in zip(texts, names, strict=True))
    merged, left_out = merge(base, ours, theirs)
    write_text(target, yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=1000))
    again = f"; changed on both sides, so restored or computed next: {', '.join(left_out)}" if left_out else ""
    return f"merged dvc.lock: {len(merged['stages'])} stages{again}"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]), file=sys.stderr)  # noqa: T201 - git shows what a merge driver says
    except DDError as error:
        sys.exit(f"error: {error}")
