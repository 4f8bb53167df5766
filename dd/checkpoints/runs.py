"""A training run's checkpoint: one folder, whole at every moment, and only for the run that wrote it."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from dd.errors import DDError
from dd.system.files import publish


def write(folder: Path, state: dict[str, Any], record: dict[str, Any]) -> None:
    """Replace the checkpoint. state: tensors; record: the rest, JSON-able, with the run's `identity`.

    Raises DDError where the disk refuses; what stood there before is then still there.
    """
    scratch = folder.with_name("checkpoint.tmp")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        torch.save(state, scratch / "state.pt")
        (scratch / "run.json").write_text(json.dumps(record))
        publish(scratch, folder)
    except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError inside torch.save
        shutil.rmtree(scratch, ignore_errors=True)  # leaves room for what else must be written
        raise DDError(f"cannot write {folder} ({error}): free some space and run it again") from error


def read(folder: Path, identity: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """State and record of a checkpoint. Raises DDError where it is damaged or of another run."""
    try:
        record = json.loads((folder / "run.json").read_text())
        found = record["identity"]
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DDError(f"{folder} is damaged ({reason}): delete it, training starts anew") from error
    if found != identity:
        raise DDError(
            f"{folder} belongs to another run: expected one of settings {identity}, got {found}: "
            "delete it, or train in another folder"
        )
    return state, record
