"""Names that follow from contents."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def fingerprint(*parts: Any) -> str:
    """16 hex digits that change with any of `parts` (JSON-able; pydantic models and paths' contents allowed)."""

    def plain(part: Any) -> Any:
        if isinstance(part, BaseModel):
            return part.model_dump(mode="json")
        if isinstance(part, Path):
            return hashlib.sha256(part.read_bytes()).hexdigest()
        raise TypeError(f"cannot take a fingerprint of a {type(part).__name__}")

    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
