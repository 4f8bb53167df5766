"""`python -m tests.helpers.bf16_products FOLDER`: products in bfloat16 of training, sampling, evaluation and bench.

Prints JSON: {part: [operations that multiplied bfloat16]}. In a process of its own, because torch reads
ATEN_CPU_CAPABILITY once.
"""

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dd import config
from dd.bench import sampling as bench
from dd.distillation.task import Task
from dd.distillation.training import train
from dd.evaluation.measure import open_evaluation
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.references import build_reference
from dd.models.base import Filters
from dd.models.precision import store_in_bf16, uses_bf16
from dd.sampling.image_sampler import ImageSampler, class_conditions
from tests.helpers.tiny import CLASSES, Cycle, settings, tiny_pairs, tiny_student, tiny_teacher
from tests.helpers.toy_metrics import TOY, pictures

PRODUCTS = ("mm", "mv", "conv", "linear", "attention", "dot")
TEACHER, TWO = config.TeacherSampler(name="teacher"), config.StudentSampler(name="dd", steps=(0, 2))
IMAGES = 40


class Products(TorchDispatchMode):
    """Operations that multiply bfloat16 matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket)
        given = tree_leaves((args, kwargs))
        half = any(isinstance(one, torch.Tensor) and one.dtype == torch.bfloat16 for one in given)
        if half and any(part in name for part in PRODUCTS):
            self.found.add(name)
        return func(*args, **(kwargs or {}))


def training(family: str, folder: Path) -> None:
    teacher = tiny_teacher(family)
    pairs = tiny_pairs(teacher, 16)
    task = Task(teacher, Cycle(pairs.take(slice(8)), 4), pairs.take(slice(8, None)), folder / family)
    train(tiny_student(teacher, family), task, settings(steps=2, precision="bf16", muon_lr=0.01))


def image_sampler(family: str) -> ImageSampler:
    teacher = tiny_teacher(family)
    student = tiny_student(teacher, family).eval()
    if uses_bf16("bf16"):
        store_in_bf16(teacher)
        store_in_bf16(student)
    conditions = class_conditions(CLASSES, torch.device("cpu"))
    return ImageSampler(teacher, conditions, Filters(guidance=2.0), 0, student, precision="bf16")


def sampling(family: str, folder: Path) -> None:
    opened = image_sampler(family)
    for sampler in (TEACHER, TWO):
        opened.images(sampler, torch.arange(3))


def evaluation(family: str, folder: Path) -> None:
    opened = image_sampler(family)
    size = opened.teacher.tokenizer.image_size
    network = SmallClassifier(ClassifierConfig(CLASSES, size, (4, 6), (0, 1)))
    network.calibrate(torch.rand(8, 3, size, size))
    network.save(folder / f"{family}-extractor.safetensors")
    extractor = ClassifierExtractor(folder / f"{family}-extractor.safetensors")
    images, labels = pictures(IMAGES)
    labels = labels % CLASSES
    path = folder / f"{family}-reference.safetensors"
    reference = build_reference(path, TOY.name, extractor, images[..., :size, :size].split(20), labels, "test")
    measure = open_evaluation(TOY, IMAGES, folder, extractor=extractor, reference=reference.path).measure
    measure(opened.batches(TEACHER, IMAGES, 20))
    measure(opened.batches(TWO, IMAGES, 20))


def benches(family: str, folder: Path) -> None:
    teacher, student = tiny_teacher(family), tiny_student(tiny_teacher(family), family).eval()
    filters, dtype = Filters(guidance=2.0), "bf16" if uses_bf16("bf16") else "fp32"
    for network in (teacher, student):
        bench.ready(network, dtype == "bf16")
    plan = bench.Plan("tiny", True, 2, 1, dtype, "cpu", filters.guidance, 0, 1.0, False, 0, 1)
    bench.measure(plan, teacher, student, filters)


@contextmanager
def quiet():
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = out


def main(folder: Path) -> None:
    parts: tuple[Callable[[str, Path], None], ...] = (training, sampling, evaluation, benches)
    found: dict[str, list[str]] = {}
    for part in parts:
        with quiet(), Products() as products:
            for family in ("llamagen", "var"):
                part(family, folder)
        found[part.__name__] = sorted(products.found)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
