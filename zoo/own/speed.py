"""How long a step of each training takes on this machine: a few of them, on random pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.models.base import Filters, Teacher
from dd.models.precision import autocast
from dd.models.registry import build_teacher, build_tokenizer, transformer_config
from dd.text.conditions import Captions
from zoo.settings import Zoo
from zoo.tokenizer import perceptual

REPEATS = 4
STUDENT = 6.0  # a student's step in those of its teacher at the same batch: three passes, two points, on-policy terms


@dataclass(frozen=True)
class Costs:
    """Seconds of one step (extractor: of both networks), and of drawing one image ("draw")."""

    seconds: dict[str, float]


def measure(zoo: Zoo) -> Costs:
    """Time the networks of one data set's entries, a few seconds each."""
    torch.manual_seed(0)
    (dataset,), (settings,) = zoo.datasets.values(), zoo.tokenizers.values()
    (learner,) = zoo.teachers.values()
    extractor = next(iter(zoo.extractors.values()))
    size = dataset.image_size
    classifier = SmallClassifier(ClassifierConfig(10, size, extractor.channels, extractor.blocks))
    tokenizer = build_tokenizer(settings.family, settings.config)
    config = transformer_config(settings.family, tokenizer, learner.config)
    teacher = build_teacher(settings.family, settings.config, config)
    images = torch.rand(settings.train.batch, 3, size, size) * 2 - 1
    many = torch.rand(extractor.train.batch, 3, size, size) * 2 - 1
    condition = _condition(teacher, learner.text_encoder is not None, learner.train.batch)
    tokens = torch.randint(len(tokenizer.codebook), (learner.train.batch, tokenizer.groups.length))

    def tokenizer_step() -> None:
        found = tokenizer.training_pass(images)
        (perceptual(classifier, found.images, images) + found.images.square().mean()).backward()

    def extractor_step() -> None:
        with autocast("auto"):
            loss = classifier(many).logits.float().square().mean()
        loss.backward()

    def teacher_step() -> None:
        with autocast("auto"):
            logits = teacher.logits(tokens, condition)
        nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens.flatten()).backward()

    step = {
        "extractor": 2.2 * _seconds(extractor_step),
        "tokenizer": 1.2 * _seconds(tokenizer_step),
        "teacher": 1.3 * _seconds(teacher_step),
    }
    step["distill"] = STUDENT * step["teacher"] * 32 / learner.train.batch
    step["draw"] = _draw(teacher, learner.text_encoder is not None)
    return Costs(step)


def _seconds(work: Callable[[], object]) -> float:
    """The quickest of a few, after one that does not count.

    By the clock or, where other programs take turns with this one, by processor time.
    """
    work()
    taken = []
    for _ in range(REPEATS):
        clock, processor = time.perf_counter(), time.process_time()
        work()
        alone = 1.2 * (time.process_time() - processor) / torch.get_num_threads()
        taken.append(min(time.perf_counter() - clock, alone))
    return min(taken)


def _condition(teacher: Teacher, text: bool, batch: int) -> object:
    if not text:
        return torch.zeros(batch, dtype=torch.int64)
    config: Any = teacher.get_submodule("transformer").config
    length = config.cls_token_num
    return Captions(torch.zeros(batch, length, config.caption_dim), torch.ones(batch, length, dtype=torch.bool))


@torch.no_grad()
def _draw(teacher: Teacher, text: bool, batch: int = 64, groups: int = 8) -> float:
    """Seconds of drawing one image with guidance, from its first groups."""
    teacher.eval()

    def draw() -> None:
        state = teacher.start(_condition(teacher, text, batch), Filters(guidance=1.5))
        for _ in range(groups):
            teacher.advance(state, teacher.log_probs(state).argmax(-1))

    return 2 * _seconds(draw) / groups * len(teacher.groups) / batch  # and the map beside it
