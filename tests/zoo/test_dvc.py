"""zoo/dvc.yaml sees what DVC alone would miss: a picture that changed, and only a picture."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from PIL import Image

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path):
    """A project with one data set and no network yet."""
    root = tmp_path / "project"
    (root / "zoo").mkdir(parents=True)
    for path in [*(ROOT / "zoo").glob("*.py"), ROOT / "zoo" / "dvc.yaml"]:
        shutil.copy(path, root / "zoo")
    for number in range(6):
        (root / "pictures" / "cat").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, 0, 0)).save(root / "pictures" / "cat" / f"{number}.png")
    mine = {"source": "folder", "folder": "pictures", "image_size": 8, "test_share": 0.34}
    groups = ("extractors", "references", "validations", "tokenizers", "teachers")
    params = {"datasets": {"mine": mine}, **{group: {} for group in groups}}
    (root / "zoo" / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "params.yaml").write_text("experiments: {}\n")
    call(root, "git", "init", "-q")
    call(root, sys.executable, "-m", "dvc", "init", "-q")
    return root


def call(root, *command):
    env = os.environ | {"DD_ROOT": str(root), "PYTHONPATH": f"{root}{os.pathsep}{ROOT}"}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=True).stdout


def packed_again(root):
    """Whether `dvc repro` packs the pictures."""
    said = call(root, sys.executable, "-m", "dvc", "repro", "zoo/dvc.yaml")
    return "Running stage 'zoo/dvc.yaml:dataset@mine'" in said


def test_a_changed_folder_is_packed_again_and_an_unchanged_one_is_not(project):
    assert packed_again(project)
    (project / "pictures" / "cat" / ".DS_Store").write_text("no data")
    assert not packed_again(project)
    Image.new("RGB", (9, 9), (0, 200, 0)).save(project / "pictures" / "cat" / "0.png")
    assert packed_again(project)
