"""The wheel: dd alone, with the small networks inside; it draws without any of the extras and outside a checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

# What belongs to the extras: importing any of these must not be needed to draw.
EXTRAS = [
    "accelerate",
    "cleanfid",
    "dask",
    "diffusers",
    "dvc",
    "dvclive",
    "fastapi",
    "fsspec",
    "gradio",
    "jinja2",
    "lpips",
    "matplotlib",
    "pandas",
    "prefect",
    "pyarrow",
    "ruamel",
    "scipy",
    "torch_fidelity",
    "transformers",
]
DRAW = """
import importlib.abc, json, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {extras!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import dd
model = dd.load("llamagen-fashion")
images = model.sample(classes=["sneaker", "bag"], steps=1, seed=0)
print(json.dumps([dd.__file__, list(images.shape), int(images.astype(int).sum())]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"  # a build leaves files beside setup.py
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.split("\0"):
        if name.startswith(("dd/", "zoo/")) or name in (
            "pyproject.toml",
            "setup.py",
            "README.md",
            "params.yaml",
            "LICENSE",
        ):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).hardlink_to(ROOT / name)
    build = [
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(folder),
        str(copy),
    ]
    subprocess.run([sys.executable, *build], check=True, capture_output=True)
    (wheel,) = folder.glob("dd-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_holds_dd_alone(site: Path):
    assert sorted(path.name for path in site.iterdir() if path.suffix != ".dist-info") == ["dd"]
    assert list((site / "dd" / "shipped" / "zoo").glob("*/student.safetensors"))
    assert list((site / "dd" / "presets").glob("*.yaml"))


def test_it_draws_without_the_extras_outside_a_checkout(site: Path, tmp_path: Path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DD_")} | {"PYTHONPATH": str(site)}
    code = DRAW.format(extras=set(EXTRAS))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    file, shape, total = json.loads(done.stdout)
    assert Path(file).is_relative_to(site)
    assert shape == [2, 28, 28, 3]
    import dd

    assert total == int(
        dd.load("llamagen-fashion").sample(classes=["sneaker", "bag"], steps=1, seed=0).astype(int).sum()
    )
