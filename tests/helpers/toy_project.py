"""A project folder with one experiment, `toy`, whose teacher is tiny and has random weights."""

from pathlib import Path
from typing import Any

import torch
import yaml

from dd.checkpoints import teachers, zoo
from dd.checkpoints.safe import save_tensors
from dd.models.base import Student, Teacher
from dd.models.registry import build_student, build_teacher, student_config

SIZES = {
    "llamagen": (
        {"codebook_size": 24, "codebook_dim": 4, "z_channels": 32, "ch": 32, "ch_mult": [1, 1], "latent": 3},
        {"n_layer": 1, "n_head": 2, "dim": 16, "vocab_size": 24, "block_size": 9, "num_classes": 3, "ffn_multiple": 16},
    ),
    "var": (
        {"codebook_size": 32, "codebook_dim": 6, "ch": 32, "ch_mult": [1, 1], "patch_nums": [1, 2, 3]},
        {"depth": 1, "embed_dim": 16, "num_heads": 2, "num_classes": 3, "vocab_size": 32, "codebook_dim": 6}
        | {"patch_nums": [1, 2, 3]},
    ),
}


def tiny_teacher(family: str, seed: int = 0) -> Teacher:
    """Random weights, large enough that the distributions of its tokens are not flat."""
    torch.manual_seed(seed)
    teacher = build_teacher(family, *SIZES[family])
    with torch.no_grad():
        for parameter in teacher.get_submodule("transformer").parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return teacher.eval().requires_grad_(False)


def make_project(root: Path, family: str = "llamagen", seed: int = 0, **trajectories: int) -> Path:
    """params.yaml, a zoo and data/toy/teacher below `root`; $DD_ROOT must already name it."""
    teacher = tiny_teacher(family, seed)
    folder = root / "zoo" / "tiny"
    for role in ("tokenizer", "transformer"):
        save_tensors(folder / f"{role}.safetensors", teacher.get_submodule(role).state_dict())
    codes, sizes = SIZES[family]
    common = {"family": family, "licence": "MIT", "source": "made in a test"}
    zoo.register("codes", "tokenizer", folder / "tokenizer.safetensors", config=codes, **common)
    more = {"tokenizer": "codes", "classes": ("hat", "shoe", "bag"), "config": sizes}
    zoo.register("tiny", "teacher", folder / "transformer.safetensors", **more, **common)
    teachers.materialise("tiny", root / "data" / "toy" / "teacher")
    settings = {"pairs": 40, "held_out": 12, "shard_size": 16, "batch": 8, "seed": 5} | trajectories
    experiment = {
        "family": family,
        "teacher": {"name": "tiny", "guidance": 1.5},
        "trajectories": settings,
        "distill": {"steps": 1},
        "evaluate": {"protocol": "fd-toy", "images": 6, "samplers": [{"name": "teacher"}]}
        | {"allow_missing": ["classifier", "reference"]},
    }
    (root / "params.yaml").write_text(yaml.safe_dump({"experiments": {"toy": experiment}}))
    return root


def tiny_student(seed: int) -> tuple[Student, dict[str, Any]]:
    """A student of `tiny_teacher("llamagen")` and its config."""
    teacher = tiny_teacher("llamagen")
    torch.manual_seed(seed)
    config = student_config(teacher)
    student = build_student("llamagen", config)
    student.initialise_from(teacher)
    return student, config


def make_shipped_project(root: Path) -> Path:
    """`make_project` with a student in its zoo, toy-dd, trained from the points 0 and 4."""
    make_project(root)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params["experiments"]["toy"]["distill"]["timesteps"] = [0, 4]
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    student, config = tiny_student(1)
    path = root / "zoo" / "tiny" / "student.safetensors"
    save_tensors(path, student.state_dict())
    provenance = {"settings": {"timesteps": [0, 4]}}
    common = {"family": "llamagen", "licence": "MIT", "source": "a test", "provenance": provenance}
    zoo.register("toy-dd", "student", path, config=config, teacher="tiny", **common)
    return root
