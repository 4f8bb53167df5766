"""A project with two folders of pictures."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.helpers.paths import ROOT
from zoo import settings
from zoo.own import steps


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Both params.yaml as they ship, the zoo's index, and two pictures folders: colour and grey."""
    root = tmp_path / "project"
    (root / "zoo" / "shipped").mkdir(parents=True)
    for name in (
        "params.yaml",
        "dvc.yaml",
        "zoo/params.yaml",
        "zoo/dvc.yaml",
        "zoo/shipped/params.yaml",
        "zoo/index.yaml",
    ):
        shutil.copy(ROOT / name, root / name)
    monkeypatch.setenv("DD_ROOT", str(root))
    for module in (settings, steps):
        if hasattr(module, "HERE"):
            monkeypatch.setattr(module, "HERE", root / "zoo")
    random = np.random.default_rng(0)
    for number in range(60):
        for name in ("cat", "dog", "owl"):
            (root / "pictures" / name).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "pictures" / name / f"{number}.png")
    return root
