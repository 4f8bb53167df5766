"""Distilled Decoding: image autoregressive models as one- and two-step generators (arXiv 2412.17153)."""

from typing import TYPE_CHECKING

from dd.errors import DDError

if TYPE_CHECKING:
    from dd.api import Model, load

__version__ = "0.1.0"
__all__ = ["DDError", "Model", "__version__", "load"]


def __getattr__(name: str) -> object:
    """`dd.load` and `dd.Model`, imported when they are first used: they bring torch along."""
    if name in ("Model", "load"):
        from dd import api

        return getattr(api, name)
    raise AttributeError(f"module 'dd' has no attribute '{name}'")
