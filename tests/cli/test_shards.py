"""dd-cli shards: what a set holds, and whether its bytes are whole."""

import json

from tests.cli.conftest import run
from tests.helpers.toy_project import make_project


def test_shards_commands(tmp_path, monkeypatch, capsys):
    from dd.trajectories import stage as trajectories

    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    make_project(tmp_path)
    trajectories.main("toy", trajectories.Engine(), "cpu")
    folder = tmp_path / "data" / "toy" / "trajectories"
    status, said, _ = run(monkeypatch, capsys, "shards", "verify", str(folder))
    assert status == 0
    assert said.startswith("ok: 4 shards, 52 pairs")
    _, said, _ = run(monkeypatch, capsys, "shards", "info", str(folder), "--json")
    facts = json.loads(said)
    assert (facts["pairs"], facts["held_out"], facts["shards"], facts["length"]) == (40, 12, 4, 9)
    assert "filters" in run(monkeypatch, capsys, "shards", "info", str(folder))[1]
    damaged = folder / "00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    status, _, errors = run(monkeypatch, capsys, "shards", "verify", str(folder))
    assert status == 2
    assert errors.startswith(f"error: {damaged} is damaged (its SHA-256 differs)")
    status, _, errors = run(monkeypatch, capsys, "shards", "info", str(tmp_path))
    assert errors.startswith(f"error: expected shards in {tmp_path}, manifest.json is missing")
