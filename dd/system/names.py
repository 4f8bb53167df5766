"""What a user may have meant by a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
