"""Figures of a bench: a table for people, JSON and a file for programs."""

import json

from dd.bench.output import report

ROWS = [{"pairs_per_second": 12.3456789, "device": "cpu", "speedup": None}]


def test_json_goes_to_the_terminal_and_into_a_file_with_machine_and_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["/somewhere/dd-cli", "bench", "map", "--json"])
    report("map", ROWS, as_json=True)
    assert json.loads(capsys.readouterr().out) == ROWS
    saved = json.loads((tmp_path / "results" / "bench" / "map.json").read_text())
    assert saved["rows"] == ROWS
    assert saved["command"] == "dd-cli bench map --json"
    assert saved["date"].endswith(" UTC")
    assert {"processor", "cores", "threads", "accelerator", "torch"} <= saved["machine"].keys()


def test_a_table_names_its_columns_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    report("map", ROWS, as_json=False)
    said = capsys.readouterr().out
    assert "pairs per second" in said
    assert "12.346" in said
    assert "-" in said.splitlines()[-2]
    assert not list(tmp_path.iterdir())
