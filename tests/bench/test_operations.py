"""What doctor and the smoke test say of a device: right, wrong or broken."""

import pytest
import torch

from dd.bench import operations as module
from dd.bench.operations import operations


def test_a_device_that_computes_right():
    found = {one.name: one for one in operations("cpu")}
    assert list(found) == ["matrix product", "bf16 attention", "fused kernel"]
    assert all(one.problem is None for one in found.values())
    assert "differs from the CPU by 0.0e+00" in found["matrix product"].found


def test_a_device_that_computes_wrong_or_not_at_all(monkeypatch: pytest.MonkeyPatch):
    def wrong(place: str) -> torch.Tensor:
        return torch.ones(3) if place == "cpu" else torch.ones(3) + 0.1

    def broken(place: str) -> torch.Tensor:
        if place != "cpu":
            raise RuntimeError("CUDA error: no kernel image is available\nmore")
        return torch.ones(3)

    monkeypatch.setattr(module, "_product", wrong)
    monkeypatch.setattr(module, "_attention", broken)
    monkeypatch.setattr(module, "_fused", lambda place: module.Operation("fused kernel", "not used"))
    product, attention, _ = operations("cuda")
    assert product.problem == "expected at most 1e-05: do not trust this device"
    assert attention.problem == "CUDA error: no kernel image is available: check the driver and the build of torch"
