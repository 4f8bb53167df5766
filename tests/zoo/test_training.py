"""Somebody's own images, from class folders to teachers of both families and a sampled picture, in seconds."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import ValidationError

from tests.helpers.paths import ROOT
from zoo.settings import Zoo, load_settings

TRAIN = {"steps": 60, "batch": 8, "lr": 0.01, "warmup": 6}
PARAMS = {
    "datasets": {"mine": {"source": "folder", "folder": "pictures", "image_size": 8, "test_share": 0.4}},
    "extractors": {"mine": {"dataset": "mine", "channels": [8, 8, 16], "blocks": [0, 0, 1], "train": TRAIN}},
    "references": {"mine": {"dataset": "mine"}},
    "tokenizers": {
        "mine": {
            "dataset": "mine",
            "extractor": "mine",
            "family": "llamagen",
            "config": {
                "codebook_size": 16,
                "codebook_dim": 4,
                "z_channels": 32,
                "ch": 32,
                "ch_mult": [1, 1],
                "num_res_blocks": 1,
                "latent": 4,
            },
            "train": TRAIN,
        },
        "scales": {
            "dataset": "mine",
            "extractor": "mine",
            "family": "var",
            "config": {
                "codebook_size": 16,
                "codebook_dim": 4,
                "ch": 32,
                "ch_mult": [1, 1],
                "num_res_blocks": 1,
                "patch_nums": [1, 2, 4],
            },
            "train": TRAIN,
        },
    },
    "teachers": {
        "mine": {
            "tokenizer": "mine",
            "config": {
                "n_layer": 1,
                "n_head": 2,
                "dim": 16,
                "ffn_multiple": 16,
            },
            "views": 2,
            "validate_every": 20,
            "train": TRAIN,
        },
        "scales": {
            "tokenizer": "scales",
            "config": {
                "depth": 1,
                "embed_dim": 16,
                "num_heads": 2,
                "num_classes": 2,
            },
            "train": TRAIN,
        },
    },
}
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


def test_a_reference_needs_its_extractor():
    for name, dataset in (("mine", "other"), ("other", "mine")):
        message = rf"references\.{name}: expected an extractor '{name}' and a data set {dataset}"
        with pytest.raises(ValidationError, match=message):
            Zoo.model_validate({**PARAMS, "references": {name: {"dataset": dataset}}})


def test_every_measuring_extractor_has_a_reference_and_no_other():
    settings = load_settings()
    assert set(settings.references) <= set(settings.extractors)
    assert not [name for name in settings.references if name.endswith(("-perceptual", "-reader"))]
