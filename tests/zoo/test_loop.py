"""The zoo's training loop: stopped and taken up again, and what it leaves behind."""

import os
import signal

import pytest
import torch
from torch import nn

from dd.errors import DDError, Stopped
from zoo import loop
from zoo.settings import Training

RUN = Training(steps=12, batch=2, lr=0.01, warmup=2)


def train(path, monkeypatch, stop_at=None, number=signal.SIGINT):
    """Weights after the training of a small network; at a step, the process gets a signal."""
    monkeypatch.setattr(loop, "HERE", path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))

    def loss_of(step):
        if step == stop_at:
            os.kill(os.getpid(), number)
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        return {"error": (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()}

    loop.fit(model, loss_of, 12, RUN, "data", "toy", owner="mine")
    return torch.cat([value.flatten() for value in model.state_dict().values()])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_goes_on_exactly(tmp_path, monkeypatch, number):
    whole = train(tmp_path / "whole", monkeypatch)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match="toy: stopped after step 6, which is saved: the same command goes on"):
        train(tmp_path / "parts", monkeypatch, stop_at=5, number=number)
    assert signal.getsignal(number) == before
    assert torch.equal(train(tmp_path / "parts", monkeypatch), whole)


def test_a_second_ctrl_c_ends_at_once(tmp_path, monkeypatch):
    def twice(_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on")

    monkeypatch.setattr(loop, "HERE", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(nn.Linear(1, 1), twice, 3, RUN, "data", "toy")


def test_the_checkpoint_goes_when_the_network_is_written(tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        train(tmp_path, monkeypatch, stop_at=3)
    folder = loop.work_folder("mine", "data", RUN, "toy")
    assert folder.name.startswith("mine-")
    assert (folder / "checkpoint.pt").is_file()
    loop.forget("mine", "data", RUN, "toy")
    assert not folder.exists()


def test_the_best_average_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "HERE", tmp_path)
    network, scores = nn.Linear(3, 1), iter([3.0, 1.0, 2.0])
    best = loop.Best(lambda: next(scores), every=4)
    loop.fit(network, lambda step: {"square": network(torch.ones(2, 3)).square().mean()}, 12, RUN, "x", "toy", best)
    assert (best.score, best.step) == (1.0, 8)
    assert torch.equal(network.weight, best.weights["weight"])


def test_a_loss_that_is_not_finite_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "HERE", tmp_path)
    network = nn.Linear(3, 1)
    with pytest.raises(DDError, match=r"^toy: the loss is not finite at step 0 \(\{'square': nan\}\); lower lr$"):
        loop.fit(network, lambda step: {"square": network.weight.sum() * float("nan")}, 12, RUN, "x", "toy")
