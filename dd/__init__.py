"""Distilled Decoding: image autoregressive models as one- and two-step generators (arXiv 2412.17153)."""

import os
from typing import TYPE_CHECKING

from dd.errors import DDError

if TYPE_CHECKING:
    from dd.api import Model, load

__version__ = "0.1.0"

# Idle threads of OpenMP look for work so many times before they sleep. If they sleep at once, two are as slow as one;
# the default, 15 times as often, takes the core from other processes. Read by the runtime when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
__all__ = ["DDError", "Model", "__version__", "load"]


def __getattr__(name: str) -> object:
    """`dd.load` and `dd.Model`, imported when they are first used: they bring torch along."""
    if name in ("Model", "load"):
        from dd import api

        return getattr(api, name)
    raise AttributeError(f"module 'dd' has no attribute '{name}'")
