"""The few git commands that the project asks."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dd.errors import DDError

START = "git init && git add --all && git commit --message start"
NO_REPOSITORY = (
    "expected a git repository, found none in {root} (DVC and the provenance of results need one): "
    "`git init`, then `git add --all && git commit --message start`"
)


def git(root: Path, *arguments: str) -> str | None:
    """Output of a git command in `root`, None if it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def demand_repository(root: Path) -> None:
    """Raise DDError if `root` is in no git repository (an unpacked archive), with the commands that mend it."""
    if git(root, "rev-parse", "--git-dir") is None:
        raise DDError(NO_REPOSITORY.format(root=root))


def demand_commit(root: Path) -> None:
    """Raise DDError if `root` lies in a git repository without any commit, which DVCLive refuses. No git is fine."""
    if git(root, "rev-parse", "--git-dir") is not None and git(root, "rev-parse", "HEAD") is None:
        raise DDError(
            f"expected a commit in the git repository of {root}, found none: "
            "`git add --all && git commit --message start`"
        )


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
