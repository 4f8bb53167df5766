"""The notebook runs from top to bottom, and holds no output of the machine that it was written on."""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"


def test_it_holds_no_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_it_runs(tmp_path):
    """By nbmake, on one thread; a cell that fails, or takes longer than five minutes, fails the test."""
    pytest.importorskip("nbmake", reason='the extra "test" is not installed')
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(tmp_path),
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=300"]
    done = subprocess.run(
        [*command, str(NOTEBOOK)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "examples/first_steps.ipynb::first_steps.ipynb" in done.stdout
