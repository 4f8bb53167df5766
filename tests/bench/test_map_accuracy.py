"""`dd-cli bench map` at a tiny size: what it reports, not how fast it is; the exact map that it compares with."""

import json

import torch

from dd.bench import map_accuracy as bench_map
from dd.flow.map import Codes, map_noise
from dd.trajectories.noise import noise
from tests.bench.conftest import bench
from tests.helpers.codebooks import paper_ode, peaked, random_codebook


def test_map(project, monkeypatch):
    monkeypatch.setattr(
        bench_map,
        "CODEBOOKS",
        {"60x8": (60, 8, "top-k 20, top-p 0.9", "llamagen-l"), "40x4": (40, 4, "none", "var-d16")},
    )
    cases = bench("map", "--tokens", "60", "--dopri5", "20", "--teacher", "tiny")
    assert [case["codebook"] for case in cases[:2]] == ["60x8", "40x4"]
    assert [case["contexts"] for case in cases] == ["random", "random", "tiny"]
    assert [case["sequence_agreement"] is None for case in cases] == [True, True, False]
    assert cases[2]["sequence_agreement"] > 0.8
    for case in cases:
        assert {"filters", "agreement", "mean_evaluations", "tokens_per_second", "speedup_over_dopri5"} <= set(case)
        assert case["tokens"] == 60
        assert case["agreement"] >= 0.98
        assert case["mean_evaluations"] < 30
        assert case["speedup_over_dopri5"] > 0
        assert case["dopri5_evaluations"] > case["mean_evaluations"]
        assert case["dopri5_tokens"] == 20
    saved = json.loads((project / "results" / "bench" / "map.json").read_text())
    assert saved["rows"] == cases
    assert saved["command"].startswith("dd-cli")
    assert saved["machine"]["torch"] == torch.__version__


def test_exact_map_is_exact():
    """Another integrator, another equation (the paper's x and t), the same tokens."""
    codes, log_p = random_codebook(30, 4), peaked(100, 30, 1.0)
    e = noise(0, torch.arange(100), 1, 4)[:, 0]
    exact = bench_map.exact_map(e, log_p, codes)
    assert (exact == paper_ode(e, log_p, codes)).double().mean() >= 0.99
    assert (exact == map_noise(e, log_p, Codes.prepare(codes)).tokens).double().mean() >= 0.98
