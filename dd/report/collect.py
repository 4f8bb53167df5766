"""Finds the rows: of the working tree, of another git revision, and the difference of the two."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from dd.errors import DDError
from dd.evaluation.rows import Row, parse_rows, read_rows
from dd.report.columns import significant
from dd.system.git import demand_git

COMPARED = (
    "value",
    "kid",
    "inception_score",
    "precision",
    "recall",
    "diversity",
    "paired_distance",
    "caption_accuracy",
)


def collect(root: Path, experiments: Sequence[str] = (), committed: bool = False) -> list[Row]:
    """Rows of results/*/rows.json, experiments in alphabetical order or as asked for.

    committed: refuse rows that were measured from a working tree with changes; they belong to no commit.
    """
    files = {path.parent.name: path for path in sorted((root / "results").glob("*/rows.json"))}
    if unknown := [name for name in experiments if name not in files]:
        raise DDError(f"no results of {', '.join(unknown)}; there are {', '.join(files) or 'none: run `dvc repro`'}")
    rows = [row for name in experiments or files for row in read_rows(files[name])]
    if not rows:
        raise DDError("expected results/<experiment>/rows.json, found none: run `dvc repro` or `make demo`")
    if committed:
        refuse_dirty(rows)
    return rows


def refuse_dirty(rows: Sequence[Row]) -> None:
    """Raise DDError, one line, if a row was not measured from a commit."""
    for row in rows:
        revision = row.get("revision")
        if not revision or str(revision).endswith("-dirty"):
            raise DDError(
                f"expected rows that were measured from a commit, found revision {revision} in {row['experiment']}: "
                f"commit code and parameters, then `dvc repro --single-item --force evaluate@{row['experiment']}`"
            )


def rows_at(root: Path, revision: str, experiments: Sequence[str] = ()) -> list[Row]:
    """The rows that a git revision (or a DVC experiment) holds. Raises DDError when there is none, or none in it."""
    revision = _experiment(root, revision) or revision
    listed = _git(root, "ls-tree", "-r", "--name-only", revision, "--", "results")
    files = [line for line in listed.splitlines() if line.endswith("/rows.json") and line.count("/") == 2]
    wanted = [file for file in files if not experiments or file.split("/")[1] in experiments]
    if not wanted:
        raise DDError(f"revision {revision} holds no results/<experiment>/rows.json to compare with")
    return [row for file in wanted for row in parse_rows(_git(root, "show", f"{revision}:./{file}"), file)]


def _experiment(root: Path, name: str) -> str | None:
    """The newest commit of the DVC experiment of this name: `dvc exp run` keeps it under refs/exps/, out of sight."""
    refs = _git(root, "for-each-ref", "--sort=-committerdate", "--format=%(refname) %(objectname)", "refs/exps")
    found = [line.split() for line in refs.splitlines()]
    return next((commit for ref, commit in found if ref.rsplit("/", 1)[1] == name), None)


def _git(root: Path, *arguments: str) -> str:
    return demand_git(root, *arguments, else_do="name a commit, branch, tag or DVC experiment")


def compare(new: Sequence[Row], old: Sequence[Row], revision: str) -> list[list[str]]:
    """Lines (experiment, sampler, metric, before, now, change, verdict), a header first.

    A change is called one only beyond two standard errors of the difference; without errors it is not judged.
    """
    before = {(row["experiment"], row["label"]): row for row in old}
    lines = [["experiment", "sampler", "metric", revision, "now", "change", "beyond 2 errors"]]
    for row in new:
        past = before.pop((row["experiment"], row["label"]), None)
        if past is None:
            lines.append([row["experiment"], row["label"], "", "–", "new", "", ""])
            continue
        for key in COMPARED:
            lines += _change(row, past, key)
    lines += [[experiment, label, "", "was there", "–", "", ""] for experiment, label in before]
    return lines


def _change(row: Row, past: Row, key: str) -> list[list[str]]:
    a, b = past.get(key), row.get(key)
    if a is None or b is None:
        return []
    name = str(row["metric"]) if key == "value" else key.replace("_", " ")
    if key == "value" and past["metric"] != row["metric"]:
        return [[row["experiment"], row["label"], name, f"was {past['metric']}", significant(b), "", "not comparable"]]
    errors = [past.get(f"{key}_error"), row.get(f"{key}_error")]
    known = [e for e in errors if e is not None]
    verdict = "" if len(known) < 2 else "yes" if abs(b - a) > 2 * math.hypot(*known) else "no"
    change = f"{'+' if b >= a else '-'}{significant(abs(b - a))}"
    return [[row["experiment"], row["label"], name, significant(a), significant(b), change, verdict]]


def render_comparison(lines: Sequence[Sequence[str]], kind: str) -> str:
    """The lines of `compare` as Markdown (table, markdown), CSV or JSON. Raises DDError for another kind."""
    if kind == "json":
        keys = [*lines[0][:3], "before", "now", "change", "beyond_2_errors"]
        return json.dumps([dict(zip(keys, line, strict=True)) for line in lines[1:]], indent=1) + "\n"
    if kind == "csv":
        return "\n".join(",".join(f'"{cell}"' if "," in cell else cell for cell in line) for line in lines) + "\n"
    if kind not in ("table", "markdown"):
        raise DDError(f"a comparison has the formats table, markdown, csv and json, got {kind}: choose one of them")
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(text) + "\n"
