"""Optimizers, schedule and averaging against their definitions."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dd.distillation.optimizers import EMA, Muon, _iterate, _iterate_small, build_optimizers, cosine, set_rate
from dd.models.precision import autocast


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 8)
        self.block = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, tokens):
        return self.head(self.norm(self.block(self.embedding(tokens))))


def names_of(optimizer, model):
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in owned}


def test_muon_takes_the_block_matrices_only():
    model = Net()
    adamw, muon = build_optimizers(model, 1e-3, muon_lr=0.01)
    assert names_of(muon, model) == {"block.weight"}
    assert names_of(adamw, model) == {n for n, _ in model.named_parameters()} - {"block.weight"}
    (alone,) = build_optimizers(model, 1e-3)
    assert names_of(alone, model) == {n for n, _ in model.named_parameters()}


def test_weight_decay_is_for_matrices():
    model = Net()
    (adamw,) = build_optimizers(model, 1e-3, weight_decay=0.1)
    for group in adamw.param_groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] == 0.1) for p in group["params"])


def test_frozen_parameters_are_left_out():
    model = Net()
    model.block.requires_grad_(False)
    assert "block.weight" not in names_of(build_optimizers(model, 1e-3)[0], model)


def test_cosine_ends():
    assert cosine(0, 100, 10, 0.1) == pytest.approx(0.1)
    assert cosine(9, 100, 10, 0.1) == 1
    assert cosine(10, 100, 10, 0.1) == pytest.approx(1)
    assert cosine(55, 100, 10, 0.1) == pytest.approx(0.55)
    assert cosine(100, 100, 10, 0.1) == pytest.approx(0.1)
    assert cosine(500, 100, 10, 0.1) == pytest.approx(0.1)
    assert cosine(0, 5, 0, 0.1) == 1


def test_rates_are_shares_of_each_peak():
    optimizers = build_optimizers(Net(), 1e-3, muon_lr=0.01)
    set_rate(optimizers, 0.5)
    set_rate(optimizers, 0.25)
    assert [o.param_groups[0]["lr"] for o in optimizers] == pytest.approx([0.00025, 0.0025])


@pytest.mark.parametrize("warmup", [False, True])
def test_average_follows_its_recurrence(warmup):
    model = nn.Linear(3, 2)
    ema = EMA(model, 0.9, warmup)
    expected = model.weight.detach().double().clone()
    for update in range(1, 30):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        ema.update(model)
        decay = min(0.9, (1 + update) / (10 + update)) if warmup else 0.9
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
    torch.testing.assert_close(ema.average["weight"].double(), expected, rtol=1e-5, atol=1e-6)


def test_integer_state_is_copied_not_averaged():
    model = Net()
    ema = EMA(model, 0.99)
    model.norm.num_batches_tracked += 7
    ema.update(model)
    assert ema.average["norm.num_batches_tracked"] == 7


def test_average_survives_a_checkpoint(tmp_path):
    torch.manual_seed(0)
    model = Net()
    ema = EMA(model, 0.9)
    ema.update(model)
    torch.save(ema.state_dict(), tmp_path / "ema.pt")
    again = EMA(Net(), 0.9)
    again.load_state_dict(torch.load(tmp_path / "ema.pt", weights_only=True))
    for average in (ema, again):
        with torch.no_grad():
            model.block.weight.fill_(1.0)
        average.update(model)
    assert again.updates == ema.updates
    assert all(torch.equal(ema.average[name], again.average[name]) for name in ema.average)


def test_training_with_both_reaches_a_low_loss():
    torch.manual_seed(0)
    model = Net()
    optimizers = build_optimizers(model, 0.02, muon_lr=0.02)
    tokens = torch.arange(5).repeat(4)
    first = last = math.inf
    for step in range(40):
        loss = nn.functional.cross_entropy(model(tokens), (tokens + 1) % 5)
        first, last = (loss.item(), last) if step == 0 else (first, loss.item())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    assert last < 0.1 * first


@pytest.mark.parametrize("shape", [(24, 24), (24, 48), (48, 24), (24, 60), (60, 24)])
@pytest.mark.parametrize("bf16", [False, True])
def test_muon_is_torchs_muon(monkeypatch, shape, bf16):
    monkeypatch.setattr("dd.distillation.optimizers.has_bf16", lambda device: bf16)
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.02, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    if bf16:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved
    other.load_state_dict({**other.state_dict(), "state": mine.state_dict()["state"]})


@pytest.mark.parametrize("condition", [1, 1e4])
def test_the_shorter_iteration_of_wide_matrices_gives_the_same(condition):
    torch.manual_seed(0)
    matrix = torch.randn(40, 112) * torch.logspace(0, -math.log10(condition), 40)[:, None]
    matrix /= matrix.norm()
    wanted = _iterate(matrix.double(), 5).float()
    for iteration in (_iterate, _iterate_small):
        assert (iteration(matrix, 5) - wanted).norm() < 1e-4 * wanted.norm()
    assert torch.equal(_iterate_small(matrix, 0), matrix)


def test_no_bf16_product_on_a_cpu_without_it(monkeypatch):
    monkeypatch.setattr("dd.models.precision.has_bf16", lambda device: False)
    monkeypatch.setattr("dd.distillation.optimizers.has_bf16", lambda device: False)
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
            seen.extend(str(func) for x in tensors if x.dtype == torch.bfloat16)
            return func(*args, **(kwargs or {}))

    model, tokens = Net(), torch.arange(5)
    optimizers = build_optimizers(model, 1e-3, muon_lr=0.01)
    with Watch():
        for precision in ("auto", "bf16"):
            with autocast(precision):
                loss = model(tokens).square().mean()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
    assert not seen
