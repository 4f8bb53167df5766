"""The checkpoint of a training run: whole or refused."""

import pytest
import torch

from dd.checkpoints import runs
from dd.errors import DDError

STATE, RECORD = {"weight": torch.arange(4.0)}, {"identity": "a" * 16, "step": 3}


def test_it_comes_back_as_it_was_written(tmp_path):
    folder = tmp_path / "checkpoint"
    runs.write(folder, {"weight": torch.zeros(4)}, RECORD | {"step": 1})
    runs.write(folder, STATE, RECORD)
    state, record = runs.read(folder, "a" * 16)
    assert torch.equal(state["weight"], STATE["weight"])
    assert record == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_that_of_another_run_or_a_damaged_one_is_refused(tmp_path):
    folder = tmp_path / "checkpoint"
    runs.write(folder, STATE, RECORD)
    with pytest.raises(DDError, match=r"belongs to another run: expected one of settings bbbb, got a{16}: delete it"):
        runs.read(folder, "bbbb")
    (folder / "run.json").write_text("{")
    with pytest.raises(DDError, match=r"checkpoint is damaged \(.*\): delete it, training starts anew"):
        runs.read(folder, "a" * 16)


def test_what_stood_there_survives_a_full_disk(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    runs.write(folder, STATE, RECORD)

    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    monkeypatch.setattr(runs.torch, "save", full)
    with pytest.raises(DDError, match=r"cannot write .*checkpoint \(.*file write failed\): free some space"):
        runs.write(folder, STATE, RECORD | {"step": 4})
    assert runs.read(folder, "a" * 16)[1]["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
