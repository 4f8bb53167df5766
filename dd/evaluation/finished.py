"""Rows of an evaluation that are finished: one file each, so that a run that is killed goes on with the next row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dd.checkpoints.safe import load_tensors, read_metadata, save_tensors
from dd.errors import DDError
from dd.evaluation.rows import Row
from dd.evaluation.sums import Measured


@dataclass(frozen=True)
class FinishedRow:
    """A row, its line of the grid (columns, 3, H, W) uint8, and the features that other rows are paired with."""

    row: Row
    grid: Tensor | None = None
    features: Tensor | None = None
    labels: Tensor | None = None

    def save(self, path: Path) -> None:
        """Write it; the file appears as a whole."""
        found = {"grid": self.grid, "features": self.features, "labels": self.labels}
        save_tensors(path, {name: tensor for name, tensor in found.items() if tensor is not None}, {"row": self.row})

    @classmethod
    def load(cls, path: Path) -> FinishedRow | None:
        """The row of an earlier run; None if there is none, or if its file is damaged: then it is measured again."""
        if not path.is_file():
            return None
        try:
            tensors, row = load_tensors(path), read_metadata(path)["row"]
        except (DDError, KeyError):
            return None
        return cls(row, tensors.get("grid"), tensors.get("features"), tensors.get("labels"))

    def partner(self) -> Measured | None:
        """What the paired distance of other samplers is taken to."""
        if self.features is None:
            return None
        return Measured(self.row["metric"], self.row["images"], features=self.features, labels=self.labels)
