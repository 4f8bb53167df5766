"""The smoke test of a device, at a tiny size on the CPU: all stages, the comparison, the plan beside it."""

import os

import pytest
from typer.testing import CliRunner

from dd.bench.smoke import rehearse
from dd.cli.main import app


@pytest.mark.slow
def test_all_stages_run_and_agree_with_the_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DD_ROOT", raising=False)
    found = rehearse("var-fashion-refined", "cpu", "h100")
    assert list(found["stages"]) == ["teacher", "trajectories", "distill", "evaluate"]
    assert found["agreement"] == {"tokens": 1.0, "first": 1.0, "pixels": 0.0}
    assert set(found["plan"]) == {"trajectories", "distill", "evaluate"}
    assert "DD_ROOT" not in os.environ


def test_a_device_that_is_not_there_is_refused():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    result = CliRunner().invoke(app, ["bench", "smoke", "--device", "cuda"])
    assert "bench smoke: expected a CUDA device" in str(result.exception)
