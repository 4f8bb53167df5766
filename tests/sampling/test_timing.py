"""How speed is measured: warm-ups are not counted, throughput is the shortest call, latency the median of ten."""

import itertools

import torch

from dd.sampling import timing

CPU = torch.device("cpu")


def clock(monkeypatch, seconds: list[float]) -> list[int]:
    """A clock by which the n-th call takes seconds[n]; returns a list that grows with every call."""
    calls: list[int] = []
    now = itertools.accumulate((0.0 if n % 2 == 0 else seconds[n // 2] for n in range(2 * len(seconds))), initial=0.0)
    ticks = iter(list(now)[1:])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    return calls


def test_the_shortest_of_two_after_a_warm_up(monkeypatch):
    calls = clock(monkeypatch, [0.5, 4.0, 3.0])
    assert timing.shortest_seconds(lambda: calls.append(1), CPU) == 3.0
    assert len(calls) == 3


def test_the_median_of_ten_after_a_warm_up(monkeypatch):
    calls = clock(monkeypatch, [99.0, 99.0, *[1.0] * 4, *[2.0] * 5, 50.0])
    assert timing.median_seconds(lambda: calls.append(1), CPU) == 2.0
    assert len(calls) == 12
    assert timing.MEDIAN_OF >= 10
