"""Our networks against stored inputs and outputs of the official ones. DD_GOLDEN names another folder of fixtures."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from dd.errors import DDError
from tests.helpers.paths import GOLDEN, ROOT
from tests.parity.__main__ import COMPUTE
from tests.parity.core import compare, read_fixtures, run_fixture


def fixture_names() -> list[str]:
    return sorted(COMPUTE) if not GOLDEN.is_dir() else [fixture.name for fixture in read_fixtures(GOLDEN)]


@pytest.mark.parametrize("name", fixture_names())
def test_every_output_agrees(name):
    assert GOLDEN.is_dir(), (
        f"no golden fixtures in {GOLDEN}: restore tests/data/golden or set DD_GOLDEN to their folder"
    )
    fixture = next(fixture for fixture in read_fixtures(GOLDEN) if fixture.name == name)
    rows = run_fixture(fixture, COMPUTE[name.partition("_")[0]])
    assert len(rows) == len(fixture.expected) >= 10
    assert [row for row in rows if not row.passed] == []


def test_command_reports_a_difference(tmp_path):
    source = next(fixture for fixture in read_fixtures(GOLDEN) if fixture.name.startswith("E_"))
    for file in source.entry["files"]["weights"], source.entry["files"]["io"]:
        (tmp_path / file).write_bytes((GOLDEN / file).read_bytes())
    (tmp_path / "README.json").write_text(json.dumps({"_about": {}, source.name: source.entry}))
    command = [sys.executable, "-m", "tests.parity", str(tmp_path), "--json"]
    good = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert good.returncode == 0
    assert json.loads(good.stdout)["passed"] is True
    changed = dataclasses.replace(source)
    changed.weights["norm.weight"] *= 1.1
    rows = {row.output: row for row in run_fixture(changed, COMPUTE["E"])}
    assert not rows["tf_logits"].passed
    assert rows["tf_logits"].max_abs > 1e-3
    assert rows["filter.k5"].passed


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(DDError, match=r"expected golden fixtures in .*found no README.json; set DD_GOLDEN"):
        read_fixtures(tmp_path)


def test_compare_is_strict():
    a = torch.tensor([1.0, float("-inf")])
    assert compare("X", "a", a, a).passed
    assert not compare("X", "a", a, torch.tensor([1.0, 0.0])).passed
    assert not compare("X", "a", a, torch.tensor([1.001, float("-inf")])).passed
    assert not compare("X", "a", a, a[:1]).passed
    assert compare("X", "i", torch.tensor([1, 2]), torch.tensor([1, 3])).integer_mismatches == 1
