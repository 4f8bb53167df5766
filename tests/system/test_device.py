"""The device of a stage: no silent fall-back, and an error that says why and what to do."""

import subprocess
from types import SimpleNamespace

import pytest
import torch

from dd import config
from dd.errors import DDError
from dd.presets import preset_names, preset_text
from dd.system import device
from dd.system.device import choose_device, cuda_problem, oldest_driver
from dd.trajectories.worker import Job, worker_device


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with a build of torch, a driver and cards of one's choice."""

    def build(cuda: str | None = "12.8", driver: str | None = None, cards: int = 0, operation: str = "") -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
        monkeypatch.setattr(device, "driver_version", lambda: driver)

        def zeros(*_: object, **__: object) -> object:
            if operation:
                raise RuntimeError(operation)
            return SimpleNamespace(add_=lambda one: SimpleNamespace(item=lambda: one))

        monkeypatch.setattr(torch, "zeros", zeros)

    return build


@pytest.mark.parametrize(
    ("have", "reason"),
    [
        ({"cuda": None}, "without CUDA: install a CUDA build of torch"),
        ({}, r"found no NVIDIA driver \(nvidia-smi does not answer\): run on a machine with a GPU"),
        (
            {"driver": "470.82.01"},
            r"driver 470.82.01 is too old for torch's CUDA 12.8: expected 525.60.13 or later, update the driver",
        ),
        ({"cuda": "13.0", "driver": "570.1"}, "expected 580.65.06 or later"),
        ({"driver": "550.54.15"}, "driver 550.54.15 answers, .* finds no card: see 'dd-cli doctor'"),
        (
            {"cards": 1, "operation": "CUDA error: no kernel image is available\nmore"},
            "got 'CUDA error: no kernel image is available' from the first operation",
        ),
    ],
)
def test_cuda_that_does_not_work_is_refused_with_the_reason(machine, have, reason):
    machine(**have)
    with pytest.raises(DDError, match=f"^mine: expected a CUDA device \\(device: cuda\\), .*{reason}"):
        choose_device("cuda", "mine")
    assert choose_device("auto", "mine") == "cpu"


def test_hidden_cards_are_named(machine, monkeypatch: pytest.MonkeyPatch):
    machine(driver="550.1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cuda_problem() == "CUDA_VISIBLE_DEVICES is empty: unset it or name a card"


def test_a_working_card_is_used_unless_the_cpu_is_asked_for(machine):
    machine(cards=1)
    assert cuda_problem() is None
    assert [choose_device(name, "mine") for name in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]


def test_drivers_of_unknown_builds_are_not_judged():
    assert (oldest_driver("12.6"), oldest_driver("99.0"), oldest_driver(None)) == ("525.60.13", None, None)


def test_without_nvidia_smi_there_is_no_driver(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device.shutil, "which", lambda name: "/usr/bin/nvidia-smi")

    def fails(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(device.subprocess, "run", fails)
    assert device.driver_version() is None


def test_dask_workers_take_cards_in_turn(machine, monkeypatch: pytest.MonkeyPatch, tmp_path):
    machine(cards=4)
    job = Job(None, tmp_path, tmp_path / "mine" / "teacher", "cuda")  # type: ignore[arg-type]
    found = []
    for name in (0, 3, 5, "tcp://10.0.0.1:4000"):
        distributed = SimpleNamespace(get_worker=lambda name=name: SimpleNamespace(name=name))
        monkeypatch.setitem(__import__("sys").modules, "distributed", distributed)
        found.append(worker_device(job))
    assert found == ["cuda:0", "cuda:3", "cuda:1", "cuda:0"]
    machine()
    with pytest.raises(DDError, match=r"^mine: expected a CUDA device"):
        worker_device(job)


@pytest.mark.parametrize("name", [name for name in preset_names() if "fashion" not in name])
def test_presets_at_paper_scale_state_their_device(name):
    import yaml

    experiment = next(iter(config.validate({"experiments": yaml.safe_load(preset_text(name))}).experiments.values()))
    assert experiment.device == "cuda"
