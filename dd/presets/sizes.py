"""Sizes of an experiment's networks, from its zoo entry alone: built on the meta device, no memory, no files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dd.checkpoints import zoo
from dd.checkpoints.teachers import tokenizer_config
from dd.config import Experiment
from dd.models.base import Student, Teacher
from dd.models.registry import build_student, build_teacher, family, student_config

WORDS = 40  # states of a caption: a long sentence


@dataclass(frozen=True)
class Sizes:
    """Parameters and buffers (numbers, not bytes), and L tokens of an image in K groups.

    caption_bytes: of the encoded states of one caption, on disk; 0 for classes.
    """

    teacher_parameters: int
    student_parameters: int
    tokens: int
    groups: int
    image_size: int
    caption_bytes: int


def teacher_configs(experiment: Experiment) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Family, and the settings of the teacher's tokenizer and transformer; of a rehearsal, as shallow as it is."""
    entry = zoo.entry(experiment.teacher.name, "teacher")
    name, config = entry.family or "", dict(entry.config or {})
    if experiment.teacher.random_blocks:
        config[family(name).depth] = experiment.teacher.random_blocks
    return name, tokenizer_config(entry), config


def student_options(experiment: Experiment) -> dict[str, Any]:
    """What the student has beyond the authors' design."""
    return asdict(experiment.distill.student) if experiment.distill else {}


def meta_networks(experiment: Experiment) -> tuple[Teacher, Student]:
    """Teacher and student on the meta device."""
    name, codes, config = teacher_configs(experiment)
    teacher = build_teacher(name, codes, config, "meta")
    return teacher, build_student(name, student_config(teacher, **student_options(experiment)), "meta")


def sizes(experiment: Experiment) -> Sizes:
    """The sizes."""
    teacher, student = meta_networks(experiment)
    count = lambda network: sum(tensor.numel() for tensor in network.state_dict().values())  # noqa: E731
    caption = 0
    if experiment.condition == "text":
        config: Any = teacher.get_submodule("transformer").config
        caption = 2 * WORDS * int(config.caption_dim)  # float16
    groups, size = teacher.groups, teacher.tokenizer.image_size
    return Sizes(count(teacher), count(student), groups.length, len(groups), size, caption)
