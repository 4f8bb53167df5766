"""The DVC remote of a run with --pull: is there one, and what does it lack?"""

import json
from pathlib import Path

from dd.errors import DDError
from pipeline.graph import Plan
from pipeline.processes import process
from pipeline.stage import DVC


def check_remote(root: Path) -> None:
    """Raise DDError, one line, if no default remote is set: DVC would compute everything without a word."""
    from dvc.config import Config  # half a second of imports: only when a run pulls

    if not Config(dvc_dir=str(root / ".dvc"))["core"].get("remote"):
        raise DDError(
            "expected a DVC remote to pull from, found none; a clone holds what git holds, the rest is computed: set "
            "one with `dvc remote add --default NAME URL` (docs/team.md), or leave --pull out"
        )


def missing(root: Path, plan: Plan) -> list[str]:
    """The stages whose recorded outputs are neither here nor in the remote: they will be computed."""
    texts: list[str] = []
    if process.run([*DVC, "data", "status", "--not-in-remote", "--json"], cwd=root, line=texts.append) != 0:
        return []
    try:
        found = json.loads(next(text for text in reversed(texts) if text.startswith("{")))
    except (StopIteration, ValueError):
        return []
    lost = {str(path).rstrip("/") for path in found.get("not_in_remote", ())}
    lost &= {str(path).rstrip("/") for path in found.get("not_in_cache", ())}
    recorded = _recorded(root)
    return [name for name, stage in plan.items() if name not in recorded or lost.intersection(stage.outs)]


def _recorded(root: Path) -> set[str]:
    """The stages that dvc.lock knows."""
    import yaml

    lock = root / "dvc.lock"
    return set((yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", ())) if lock.is_file() else set()


def announcement(root: Path, plan: Plan) -> str | None:
    """One line that says what the remote does not have, None if it has everything."""
    names = missing(root, plan)
    return f"the remote lacks {', '.join(names)}: computed here" if names else None
