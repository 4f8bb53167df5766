"""Somebody's own images, from class folders to teachers of both families and a sampled picture, in seconds."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.helpers.paths import ROOT
from tests.helpers.small.zoo_params import PARAMS

SCRIPT = """
from zoo import dataset, extractor, reference, register, teacher, tokenizer
for stage, names in ((dataset, ["mine"]), (extractor, ["mine"]), (reference, ["mine"]),
                     (tokenizer, ["mine", "scales"]), (teacher, ["mine", "scales"]), (register, ["mine"])):
    for name in names:
        print(stage.main(name))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose zoo was trained on 32 pictures of two classes."""
    root = tmp_path_factory.mktemp("project")
    (root / "zoo").mkdir()
    for path in (ROOT / "zoo").glob("*.py"):
        shutil.copy(path, root / "zoo")
    (root / "zoo" / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    (root / "params.yaml").write_text("experiments: {}\n", encoding="utf-8")
    random = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (root / "pictures" / name).mkdir(parents=True)
        for index in range(16):
            pixels = random.integers(label * 150, label * 150 + 60, (10, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "pictures" / name / f"{index}.png")
    env = os.environ | {"DD_ROOT": str(root), "PYTHONPATH": f"{root}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=root, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return root, done.stdout.splitlines()


def test_every_stage_says_what_it_wrote(project):
    root, said = project
    assert said[0] == "wrote zoo/data/mine: 20 train images, 12 test images"
    assert [line.split(":")[0] for line in said[1:7]] == [
        "wrote zoo/mine/extractor.safetensors",
        "wrote zoo/mine/reference.safetensors and images.npz",
        "wrote zoo/mine/tokenizer.safetensors",
        "wrote zoo/scales/tokenizer.safetensors",
        "wrote zoo/mine/teacher.safetensors",
        "wrote zoo/scales/teacher.safetensors",
    ]
    assert said[1].endswith(" of 12 test images right")
    assert not list((root / "zoo").rglob(".*"))  # nothing half-written
    assert not list((root / "zoo" / "work").glob("*/checkpoint.pt"))  # nor of what is finished


@pytest.mark.parametrize("name", ["mine", "scales"])
def test_what_was_registered_draws(project, monkeypatch, name):
    monkeypatch.setenv("DD_ROOT", str(project[0]))
    import torch

    from dd.checkpoints import teachers, zoo
    from dd.models.base import Filters

    entry = zoo.entry(name, "teacher")
    assert entry.class_names() == ("dark", "light")
    teacher = teachers.load_teacher(name)
    torch.manual_seed(0)
    state, tokens = teacher.start(torch.tensor([0, 1]), Filters()), []
    for _ in range(len(teacher.groups)):
        tokens.append(torch.distributions.Categorical(logits=teacher.log_probs(state)).sample())
        teacher.advance(state, tokens[-1])
    images = teacher.decode(teacher.codebook[torch.cat(tokens, 1)])
    assert images.shape == (2, 3, 8, 8)
    assert torch.isfinite(images).all()


def test_a_name_that_is_not_there(project):
    root, _ = project
    done = subprocess.run(
        [sys.executable, "-m", "zoo.dataset", "yours"],
        cwd=root,
        env=os.environ | {"DD_ROOT": str(root), "PYTHONPATH": f"{root}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: no data set 'yours' in zoo/params.yaml; there are mine"
