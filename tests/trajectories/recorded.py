"""On a CPU: operations that read a value back to the host, and a stand-in for CUDA graphs.

The stand-in runs work once under a dispatch mode that keeps every operation with its tensors. A replay does the same
operations on the same tensors again, results written into the places of the first: what a CUDA graph does. Whatever
depends on Python between the operations, on new tensors, or on a value that was read, shows as a difference.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations whose result's shape or Python value is known only when the device has finished.
READS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "repeat_interleave.Tensor")


def reads(func: Any, args: Any) -> bool:
    """Does this operation make the host wait for an accelerator?"""
    name = str(func)
    boolean = "index" in name and any(
        isinstance(x, torch.Tensor) and x.dtype == torch.bool for x in tree_leaves(args[1:2])
    )
    return boolean or any(read in name for read in READS)


class NoReads(TorchDispatchMode):
    """Fails at an operation that makes the host wait for an accelerator."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not reads(func, args), f"{func} reads from the device"
        return func(*args, **(kwargs or {}))


class _Recording(NoReads):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self.calls.append((func, args, kwargs or {}, out))
        return out


class StandIn:
    """A `dd.trajectories.graphs.Recorder` for a CPU."""

    def __init__(self, monkeypatch: Any) -> None:
        self.monkeypatch, self.operations, self.replays = monkeypatch, 0, 0

    def pool(self) -> object:
        return object()

    def record(self, work: Callable[[], None], pool: Any) -> Callable[[], None]:
        from dd.models import base

        with self.monkeypatch.context() as patch, _Recording() as mode:
            patch.setattr(base, "check_classes", lambda *_: None)  # as while a graph is captured
            for family in ("var", "llamagen"):
                patch.setattr(f"dd.models.{family}.teacher.check_classes", lambda *_: None)
            work()
        self.operations += len(mode.calls)

        def replay() -> None:
            self.replays += 1
            with torch.no_grad():
                for func, args, kwargs, out in mode.calls:
                    _again(func, args, kwargs, out)

        return replay


def _again(func: Any, args: Any, kwargs: Any, out: Any) -> None:
    aliases = [one.alias_info for one in func._schema.returns]
    if all(a is not None and not a.is_write for a in aliases) and aliases:
        return  # a view: it still shows the same memory
    new = func(*args, **kwargs)
    if any(a is not None and a.is_write for a in aliases):
        return  # in place
    for old, fresh in zip(tree_leaves(out), tree_leaves(new), strict=True):
        if isinstance(old, torch.Tensor):
            old.copy_(fresh)
