"""The few git commands that the project asks."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dd.errors import DDError


def git(root: Path, *arguments: str) -> str | None:
    """Output of a git command in `root`, None if it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def demand_git(root: Path, *arguments: str, else_do: str) -> str:
    """The same, but a DDError with git's reason if it fails. else_do: what the user can do about it."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise DDError("expected git on this machine, found none: install it to compare revisions") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise DDError(f"git cannot show that revision ({reason}): {else_do}")
    return done.stdout


def revision(root: Path, *paths: str) -> str | None:
    """The commit that is checked out, with `-dirty` where tracked files (below `paths`) differ; None outside git."""
    commit = git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = git(root, "status", "--porcelain", "--untracked-files=no", "--", *paths)
    return f"{commit}-dirty" if changed else commit
