"""`dd-cli bench map|trajectories|shards` at tiny sizes: what they report, not how fast they are."""

import json

import pytest
import torch
from typer.testing import CliRunner

from dd.bench import map_accuracy as bench_map
from dd.checkpoints import zoo
from dd.cli.main import app
from dd.flow.map import Codes, map_noise
from dd.trajectories.noise import noise
from tests.helpers.codebooks import peaked, random_codebook
from tests.helpers.toy_project import make_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    return make_project(tmp_path)


def bench(*arguments: str) -> list[dict]:
    result = CliRunner().invoke(app, ["bench", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


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
    from tests.flow.test_map import paper_ode

    codes, log_p = random_codebook(30, 4), peaked(100, 30, 1.0)
    e = noise(0, torch.arange(100), 1, 4)[:, 0]
    exact = bench_map.exact_map(e, log_p, codes)
    assert (exact == paper_ode(e, log_p, codes)).double().mean() >= 0.99
    assert (exact == map_noise(e, log_p, Codes.prepare(codes)).tokens).double().mean() >= 0.98


def test_trajectories(project):
    (row,) = bench("trajectories", "--teacher", "tiny", "--batch", "4", "--repeats", "1")
    assert row["ratio"] == pytest.approx(row["pairs_seconds_per_1000"] / row["sampling_seconds_per_1000"])
    assert row["mean_evaluations"] > 1
    assert zoo.entry("tiny").kind == "teacher"


def test_trajectories_in_two_processes(project):
    (row,) = bench("trajectories", "--teacher", "tiny", "--batch", "4", "--repeats", "1", "--processes", "2")
    assert row["processes"] == 2
    assert row["speedup"] == pytest.approx(row["pairs_per_second"] / row["pairs_per_second_of_one"])
    assert 0.2 < row["speedup"] < 8


def test_shards(project):
    rows = bench("shards", "--pairs", "64", "--length", "9", "--codebook", "32x4", "--batch", "8", "--seconds", "0.1")
    assert [row["pairs"] for row in rows] == [64, 512]
    assert all(row["rows_per_second"] > 0 for row in rows)
