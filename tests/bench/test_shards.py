"""dd-cli bench trajectories and shards at tiny sizes: what they report, not how fast they are."""

import pytest

from dd.checkpoints import zoo
from tests.bench.conftest import bench


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
