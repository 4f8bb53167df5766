"""A measured row survives in its file."""

from pathlib import Path

import torch

from dd.evaluation.finished import FinishedRow


def test_a_row_survives_its_file(tmp_path: Path):
    row = FinishedRow({"metric": "FD", "images": 3}, torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.ones(3, 2))
    row.save(tmp_path / "row.safetensors")
    found = FinishedRow.load(tmp_path / "row.safetensors")
    assert found.row == row.row
    assert torch.equal(found.grid, row.grid)
    assert torch.equal(found.partner().features, torch.ones(3, 2))
    assert found.labels is None
    assert FinishedRow.load(tmp_path / "none.safetensors") is None
