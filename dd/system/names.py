"""Names of users: what a wrong one may have meant, and which are fit for files, DVC and every operating system."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

LONGEST = 64
# Groups of stages, which `dd-cli run` takes beside experiments, and a folder of results/.
TAKEN = ("code", "teacher", "trajectories", "distill", "evaluate", "report", "bench")
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.I)  # Windows makes no files of these names


def near(wrong: str, known: Iterable[str], most: int = 2) -> list[str]:
    """Up to `most` known names that look like the wrong one, whatever their case; the nearest first."""
    by_lower: dict[str, str] = {}
    for name in known:
        by_lower.setdefault(name.lower(), name)
    return [by_lower[name] for name in difflib.get_close_matches(wrong.lower(), by_lower, n=most)]


def hint(wrong: str, known: Iterable[str], listed: Iterable[str] | None = None, most: int = 2) -> str:
    """`did you mean a or b?`, or else `there are ...` with the names of `listed` (default: all known ones)."""
    names = list(dict.fromkeys(known))
    if close := near(wrong, names, most):
        return f"did you mean {' or '.join(close)}?"
    return f"there are {', '.join(dict.fromkeys(names if listed is None else listed)) or 'none'}"


def check_names(experiments: Any) -> Any:
    """The same mapping of experiments if their names can be used everywhere, else a ValueError that says why not.

    A name is a key of params.yaml, a folder (also where A and a are one), a part of `evaluate@NAME` and of DVC's
    `experiments.NAME.distill`.
    """
    seen: dict[str, str] = {}
    for name in experiments if isinstance(experiments, dict) else ():
        if fault := name_fault(name):
            raise ValueError(f"{fault}; found the name {name!r}")
        if other := seen.get(name.lower()):
            raise ValueError(f"expected names that differ in more than case, found {other!r} and {name!r}")
        seen[name.lower()] = name
    return experiments


def name_fault(name: Any) -> str | None:
    """What an experiment's name has to be and this one is not, None for a good one."""
    if not isinstance(name, str):
        return "expected the name of an experiment as text: put it in quotes"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or len(name) > LONGEST:
        return f"expected a name of up to {LONGEST} letters, digits, '-' and '_' that begins with a letter or digit"
    if name.isdigit():
        return "expected a name with a letter in it"
    if name.lower() in TAKEN or DEVICES.fullmatch(name):
        return "expected a name that is free: stages and Windows' devices have this one"
    return None


def file_name(text: str) -> str:
    """A label as a name for a file or folder that every operating system allows: `onestep*` is `onestep`."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "", text).rstrip(" .") or "_"
