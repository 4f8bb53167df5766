"""Tiny teachers of both families, their students, and pairs in memory: a training step takes milliseconds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from dd import config
from dd.checkpoints import teachers, zoo
from dd.checkpoints.safe import save_tensors
from dd.checkpoints.teachers import read_info
from dd.config import DistillConfig
from dd.distillation.task import Pairs
from dd.models.base import Filters, Student, Teacher
from dd.models.registry import build_student, build_teacher, student_config
from dd.trajectories.noise import noise
from dd.trajectories.plan import finish, to_table, write_shard
from dd.trajectories.stage import make_plan
from dd.trajectories.trajectory import trajectory

V, C, CLASSES = 16, 4, 3
SCALES = (1, 2, 3)
CODES: dict[str, dict[str, Any]] = {
    "llamagen": {"codebook_size": V, "codebook_dim": C, "z_channels": 32, "ch": 32, "ch_mult": [1, 1], "latent": 3},
    "var": {"codebook_size": V, "codebook_dim": C, "ch": 32, "ch_mult": [1, 1], "patch_nums": SCALES},
}
SIZES: dict[str, dict[str, Any]] = {
    "llamagen": {"n_layer": 2, "n_head": 2, "dim": 16, "vocab_size": V, "block_size": 9, "num_classes": CLASSES},
    "var": {
        "depth": 2,
        "embed_dim": 16,
        "num_heads": 2,
        "num_classes": CLASSES,
        "vocab_size": V,
        "codebook_dim": C,
        "patch_nums": SCALES,
    },
}
FAST: dict[str, Any] = {
    "steps": 12,
    "batch": 4,
    "warmup": 2,
    "timesteps": (0, 2),
    "precision": "fp32",
    "log_every": 2,
    "evaluate_every": 4,
    "checkpoint_every": 3,
}


def tiny_teacher(family: str) -> Teacher:
    """Random weights, far enough from silence that tokens depend on what is before them."""
    torch.manual_seed(0)
    teacher = build_teacher(family, CODES[family], SIZES[family]).eval().requires_grad_(False)
    teacher.tokenizer.init_weights()  # type: ignore[operator]
    for parameter in teacher.get_submodule("transformer").parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    return teacher


def tiny_student(teacher: Teacher, family: str, **options: Any) -> Student:
    """A student that starts from its teacher."""
    torch.manual_seed(1)
    student = build_student(family, student_config(teacher, **options))
    student.initialise_from(teacher)
    return student


def tiny_pairs(teacher: Teacher, rows: int, seed: int = 0) -> Pairs:
    """True trajectories."""
    indices = torch.arange(rows)
    e = noise(seed, indices, teacher.groups.length, C)
    return Pairs(e, trajectory(teacher, indices % CLASSES, e, Filters()).tokens, indices % CLASSES)


def settings(**more: Any) -> DistillConfig:
    """Settings of a short run."""
    return DistillConfig(**{**FAST, **more})


class Cycle:
    """Batches of some pairs in order, round and round. stop: raise KeyboardInterrupt in place of that batch."""

    def __init__(self, pairs: Pairs, batch: int, stop: int | None = None) -> None:
        self.pairs, self.batch, self.stop, self.given = pairs, batch, stop, 0

    def __iter__(self) -> Iterator[Pairs]:
        while self.given != self.stop:
            rows = (self.given * self.batch + torch.arange(self.batch)) % len(self.pairs)
            self.given += 1
            yield Pairs(self.pairs.noise[rows], self.pairs.tokens[rows], self.pairs.condition[rows])
        raise KeyboardInterrupt

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.given = state["given"]


def write_project(root: Path, family: str = "llamagen", **distill: Any) -> None:
    """A project folder with one experiment `toy`: its teacher, and shards of random tokens. Needs DD_ROOT to be it."""
    folder = root / "zoo" / "tiny"
    teacher = tiny_teacher(family)
    for role in ("tokenizer", "transformer"):
        save_tensors(folder / f"{role}.safetensors", teacher.get_submodule(role).state_dict())
    common = {"family": family, "licence": "MIT", "source": "made in a test"}
    zoo.register("tiny-tokenizer", "tokenizer", folder / "tokenizer.safetensors", config=CODES[family], **common)
    more = {"tokenizer": "tiny-tokenizer", "classes": ("hat", "shoe", "bag"), "config": SIZES[family]}
    zoo.register("tiny", "teacher", folder / "transformer.safetensors", **more, **common)
    write_params(root, family, **distill)
    teachers.materialise("tiny", root / "data" / "toy" / "teacher")
    write_shards(root)


def write_params(root: Path, family: str = "llamagen", teacher: dict[str, Any] | None = None, **distill: Any) -> None:
    """params.yaml with the experiment `toy`."""
    chosen = {key: list(value) if isinstance(value, tuple) else value for key, value in {**FAST, **distill}.items()}
    experiment = {
        "family": family,
        "teacher": {"name": "tiny", **(teacher or {})},
        "trajectories": {"pairs": 48, "held_out": 8, "shard_size": 16},
        "distill": chosen,
        "evaluate": {"samplers": [{"name": "teacher"}], "allow_missing": ["classifier", "reference"]},
    }
    (root / "params.yaml").write_text(yaml.safe_dump({"experiments": {"toy": experiment}}))


def write_shards(root: Path) -> None:
    """Shards of the experiment `toy`; their tokens are a simple function of their noise."""
    teacher_dir, folder = root / "data" / "toy" / "teacher", root / "data" / "toy" / "trajectories"
    plan = make_plan(config.load_experiment("toy", root / "params.yaml"), read_info(teacher_dir))
    folder.mkdir(parents=True, exist_ok=True)
    for shard in plan.shards:
        e = noise(plan.seed, torch.arange(shard.first, shard.first + shard.rows), plan.length, plan.width)
        write_shard(folder, shard, to_table(plan, shard, (e[..., 0] > 0).long() * 5 + (e[..., 1] > 0).long()), 1.0)
    finish(folder, plan)
