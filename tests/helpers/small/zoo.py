"""A project whose zoo has a teacher and a student."""

import json
from pathlib import Path

import torch

from dd.checkpoints import zoo
from dd.checkpoints.safe import save_tensors
from dd.models.registry import build_student, build_teacher, student_config

CODES = {"codebook_size": 16, "codebook_dim": 4, "z_channels": 32, "ch": 32, "ch_mult": [1, 1], "latent": 2}
GPT = {"n_layer": 1, "n_head": 2, "dim": 16, "vocab_size": 16, "block_size": 4, "num_classes": 3, "ffn_multiple": 16}
LICENCE = {"licence": "MIT", "source": "made in a test"}
CLASSES = ("hat", "shoe", "bag")


def make_teacher(seed=0, **changes):
    torch.manual_seed(seed)
    return build_teacher("llamagen", CODES, GPT | changes)


def make_zoo(root: Path) -> Path:
    """A folder ($DD_ROOT must already name it) whose zoo ships one tiny teacher, a deeper one, and a student."""
    folder = root / "zoo" / "tiny"
    teacher, deep = make_teacher(), make_teacher(n_layer=2)
    save_tensors(folder / "tokenizer.safetensors", teacher.tokenizer.state_dict())
    save_tensors(folder / "transformer.safetensors", teacher.transformer.state_dict())
    save_tensors(folder / "deep.safetensors", deep.transformer.state_dict())
    config = json.loads(json.dumps(student_config(teacher)))
    save_tensors(folder / "student.safetensors", build_student("llamagen", config).state_dict())
    common = {"family": "llamagen", **LICENCE}
    zoo.register("tiny-tokenizer", "tokenizer", folder / "tokenizer.safetensors", config=CODES, **common)
    shared = {"tokenizer": "tiny-tokenizer", "classes": CLASSES, **common}
    zoo.register("tiny", "teacher", folder / "transformer.safetensors", config=GPT, **shared)
    zoo.register("tiny-deep", "teacher", folder / "deep.safetensors", config=GPT | {"n_layer": 2}, **shared)
    zoo.register("tiny-dd", "student", folder / "student.safetensors", config=config, teacher="tiny", **common)
    return root
