"""A toy project whose experiment can be evaluated."""

from pathlib import Path

import numpy as np
import torch
import yaml

from dd.checkpoints import teachers, zoo
from dd.checkpoints.safe import save_tensors
from dd.checkpoints.students import save_student_dir
from dd.checkpoints.teachers import load_teacher_dir
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.references import build_reference
from dd.models.registry import build_student, build_teacher, student_config

CODES = {"codebook_size": 16, "codebook_dim": 4, "z_channels": 32, "ch": 32, "ch_mult": [1, 1], "latent": 2}


GPT = {"n_layer": 1, "n_head": 2, "dim": 16, "vocab_size": 16, "block_size": 4, "num_classes": 3, "ffn_multiple": 16}


SIZE, N = 4, 90


SAMPLERS = [
    {"name": "real"},
    {"name": "reconstruction"},
    {"name": "dd", "steps": [0]},
    {"name": "dd", "steps": [0, 2]},
    {"name": "teacher"},
    {"name": "dd+teacher", "steps": [0, 3], "teacher_start": 1},
    {"name": "skip", "n": 1},
    {"name": "onestep*"},
]


def write_params(root: Path, **evaluate_settings) -> None:
    settings = {"protocol": "fd-toy", "images": N, "batch": 40, "samplers": SAMPLERS} | evaluate_settings
    experiment = {
        "family": "llamagen",
        "teacher": {"name": "tiny", "guidance": 1.5},
        "trajectories": {"pairs": 8},
        "distill": {"steps": 1},
        "evaluate": settings,
    }
    (root / "params.yaml").write_text(yaml.safe_dump({"experiments": {"toy": experiment}}))


def make_evaluation(root: Path) -> Path:
    """A teacher, a student, a set predictor, an extractor and its reference; $DD_ROOT must already name `root`."""
    torch.manual_seed(0)
    teacher = build_teacher("llamagen", CODES, GPT)
    folder = root / "zoo" / "tiny"
    save_tensors(folder / "tokenizer.safetensors", teacher.tokenizer.state_dict())
    save_tensors(folder / "transformer.safetensors", teacher.transformer.state_dict())
    common = {"family": "llamagen", "licence": "MIT", "source": "made in a test"}
    zoo.register("tiny-tokenizer", "tokenizer", folder / "tokenizer.safetensors", config=CODES, **common)
    more = {"tokenizer": "tiny-tokenizer", "classes": ("hat", "shoe", "bag"), "config": GPT}
    zoo.register("tiny", "teacher", folder / "transformer.safetensors", **more, **common)
    teacher_dir = root / "data" / "toy" / "teacher"
    teachers.materialise("tiny", teacher_dir)
    sizes = student_config(teacher)
    student = build_student("llamagen", sizes)
    student.initialise_from(load_teacher_dir(teacher_dir))
    for target in (root / "models" / "toy", root / "models" / "toy" / "baseline"):
        save_student_dir(target, student, sizes, teacher_dir, {})
    SmallClassifier(ClassifierConfig(3, SIZE, (4, 5), (0, 0))).save(root / "zoo" / "toy" / "extractor.safetensors")
    images, labels = torch.randint(0, 255, (N, 3, SIZE, SIZE), dtype=torch.uint8), torch.arange(N) % 3
    extractor = ClassifierExtractor(root / "zoo" / "toy" / "extractor.safetensors")
    build_reference(root / "zoo" / "toy" / "reference.safetensors", "fd-toy", extractor, [images], labels, "test")
    np.savez_compressed(
        root / "zoo" / "toy" / "images.npz", images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy()
    )
    write_params(root)
    return root


VALIDATION = "fd-toy-validation"


def add_reference(root: Path, name: str = "validation", seed: int = 7, protocol: str = VALIDATION):
    """A reference of random images beside the toy project's own."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 255, (N, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    folder = root / "zoo" / "toy"
    extractor = ClassifierExtractor(folder / "extractor.safetensors")
    return build_reference(
        folder / f"{name}.safetensors", protocol, extractor, [images], torch.arange(N) % 3, "validation images"
    )
