"""Digests of code: a changed formula reruns a stage, a changed comment, docstring or layout does not."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from dd.system.code import behind, digest, digests
from tests.helpers.paths import ROOT

FORMULA = '''"""Doubles."""

import math


def double(x):
    """Twice x."""
    return 2 * x  # the formula


class Shape:
    """A shape."""

    sides: int = 4
'''
SAME = [
    FORMULA.replace("Twice x.", "The number, two times."),
    FORMULA.replace('    """Twice x."""\n', ""),
    FORMULA.replace("  # the formula", ""),
    FORMULA.replace("double(x):", "double(\n    x,\n):"),
    FORMULA.replace("return 2 * x", "return (2 * x)"),
]
OTHER = [
    FORMULA.replace("2 * x", "3 * x"),
    FORMULA.replace("sides: int = 4", "sides: int = 5"),
    FORMULA.replace("    return 2 * x", '    text = """Twice x."""\n    return 2 * x'),
    FORMULA.replace("import math", "import cmath"),
]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", SAME)
def test_comments_docstrings_and_layout_do_not_count(tmp_path: Path, text: str):
    assert text != FORMULA
    assert digest(write(tmp_path / "a.py", FORMULA)) == digest(write(tmp_path / "b.py", text))


@pytest.mark.parametrize("text", OTHER)
def test_what_the_code_does_counts(tmp_path: Path, text: str):
    assert digest(write(tmp_path / "a.py", FORMULA)) != digest(write(tmp_path / "b.py", text))


def test_imports_are_followed_inside_functions_and_through_packages(tmp_path: Path):
    script = write(tmp_path / "run.py", "def main():\n    from lib.inner import one\n    one()\n")
    write(tmp_path / "lib/__init__.py", "")
    write(tmp_path / "lib/inner.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lib.typed\n")
    write(tmp_path / "lib/typed.py", "import os\n")
    write(tmp_path / "lib/unused.py", "")
    found = {path.relative_to(tmp_path).as_posix() for path in behind([script], tmp_path)}
    assert found == {"run.py", "lib/__init__.py", "lib/inner.py", "lib/typed.py"}
    assert set(digests([script], ["lib/t"], tmp_path)) == {"run.py", "lib/__init__.py", "lib/inner.py"}


@pytest.mark.parametrize("family", ["llamagen", "var"])
def test_stages_know_the_code_that_decides_their_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str):
    """A floor under what is found by imports: files that a stage must know, and some that it must not."""
    from stages import code

    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    code.main(f"{family}-fashion")
    stored = {
        stage: set(json.loads((tmp_path / f"data/{family}-fashion/code/{stage}.json").read_text()))
        for stage in code.WITHOUT
    }
    pairs = {"dd/flow/map.py", "dd/flow/kernel.py", "dd/flow/kernel_triton.py", "dd/trajectories/trajectory.py"}
    pairs |= {f"dd/models/{family}/{part}.py" for part in ("teacher", "tokenizer", "transformer")}
    student = {f"dd/models/{family}/student.py", "dd/models/heads.py", "dd/sampling/samplers.py"}
    assert pairs <= stored["trajectories"]
    assert not student & stored["trajectories"]
    assert pairs | student | {"dd/distillation/losses.py", "dd/distillation/optimizers.py"} <= stored["distill"]
    assert student | {"dd/evaluation/measure.py", "dd/metrics/distances.py"} <= stored["evaluate"]
    assert "dd/checkpoints/safe.py" in stored["teacher"]
    other = "var" if family == "llamagen" else "llamagen"
    assert not [name for names in stored.values() for name in names if name.startswith(f"dd/models/{other}/")]


def test_a_changed_extractor_or_reference_reruns_what_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Evaluation depends on what measures it, own networks included; nothing before it does."""
    from stages import code

    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    write(tmp_path / "params.yaml", (ROOT / "params.yaml").read_text().replace("fd-fashion", "fd-mine"))
    evaluate = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["evaluate"]["do"]
    assert "data/${key}/code/evaluate.json" in evaluate["deps"]
    stored = []
    for extractor, reference in (("a", "a"), ("b", "a"), ("b", "b"), ("b", "b")):
        write(tmp_path / "zoo/mine/extractor.safetensors", extractor)
        write(tmp_path / "zoo/mine/reference.safetensors", reference)
        code.main("var-fashion")
        files = (tmp_path / f"data/var-fashion/code/{stage}.json" for stage in code.WITHOUT)
        stored.append({path.stem: path.read_text() for path in files})
    changed = [{n for n in a if a[n] != b[n]} for a, b in pairwise(stored)]
    assert changed == [{"evaluate"}, {"evaluate"}, set()]


def test_dvc_reruns_for_a_formula_and_not_for_a_comment(tmp_path: Path):
    """The way of dvc.yaml in small: a stage that always writes digests, and one that depends on them."""
    lib = write(tmp_path / "lib.py", FORMULA)
    write(tmp_path / "work.py", "import lib\nopen('count.txt', 'a').write('x')\nopen('out.txt', 'w').write('1')\n")
    write(
        tmp_path / "code.py",
        "import json, pathlib, sys\nsys.path.pop(0)\nfrom dd.system.code import digests\nhere = pathlib.Path.cwd()\n"
        "pathlib.Path('code.json').write_text(json.dumps(digests([here / 'work.py'], [], here)))\n",
    )
    stages = {
        "code": {"cmd": f"{sys.executable} code.py", "always_changed": True, "outs": [{"code.json": {"cache": False}}]},
        "work": {"cmd": f"{sys.executable} work.py", "deps": ["code.json"], "outs": ["out.txt"]},
    }
    write(tmp_path / "dvc.yaml", yaml.safe_dump({"stages": stages}))

    def repro() -> int:
        subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=tmp_path, check=True)
        return len((tmp_path / "count.txt").read_text())

    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    assert repro() == 1
    assert repro() == 1
    lib.write_text(SAME[0] + "# more\n")
    assert repro() == 1
    lib.write_text(OTHER[0])
    assert repro() == 2
