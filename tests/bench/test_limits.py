"""What a call could take at best: counted operations over the device's rate."""

import torch

from dd.bench import limits
from dd.bench.limits import flops, product_rate


def test_products_and_convolutions_are_counted():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert flops(lambda: a @ b) == 2 * 3 * 5 * 7
    image = torch.randn(1, 2, 6, 6)
    layer = torch.nn.Conv2d(2, 4, 3, padding=1)
    assert flops(lambda: layer(image)) == 2 * 6 * 6 * 4 * 2 * 9
    assert flops(lambda: a + 1) == 0


def test_the_rate_is_that_of_the_fastest_product(monkeypatch):
    clock = iter([0.0, 4.0, 4.0, 5.0, 5.0, 7.0])
    monkeypatch.setattr(limits, "SIDE", {"cpu": 8})
    monkeypatch.setattr(limits, "TRIES", 2)
    monkeypatch.setattr(limits.time, "perf_counter", lambda: next(clock))
    assert product_rate("cpu", torch.float32) == 2 * 8**3 / 1.0
