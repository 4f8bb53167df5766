"""An experiment's networks, ready to draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dd import config
from dd.checkpoints.students import load_student_dir
from dd.checkpoints.teachers import TeacherInfo, load_teacher_dir, read_info
from dd.config import project_root
from dd.errors import DDError
from dd.flow.grid import Solver
from dd.metrics.protocols import protocol
from dd.models.base import Filters
from dd.models.precision import store_in_bf16, uses_bf16
from dd.sampling.image_sampler import Conditions, ImageSampler, class_conditions
from dd.system.device import choose_device


def open_image_sampler(
    name: str, root: Path, device: str | None = None, protocol: str | None = None
) -> tuple[ImageSampler, TeacherInfo]:
    """All samplers of an experiment, from data/<name>/teacher and models/<name>; a student that is missing is None.

    protocol: whose choice of classes is drawn, if not the experiment's own. Raises DDError for settings that cannot be
    and for networks that do not belong together.
    """
    experiment = config.load_experiment(name)
    if protocol is not None:
        evaluate = experiment.evaluate.model_copy(update={"protocol": protocol})
        experiment = experiment.model_copy(update={"evaluate": evaluate})
    device = device or choose_device(experiment.device, name)
    teacher_dir, models = root / "data" / name / "teacher", root / "models" / name
    info = read_info(teacher_dir)
    teacher = load_teacher_dir(teacher_dir, device)
    found = {
        role: load_student_dir(folder, teacher_dir, device)
        for role, folder in {"student": models, "baseline": models / "baseline"}.items()
        if (folder / "student.json").is_file()
    }
    if uses_bf16(experiment.evaluate.precision, torch.device(device).type):
        for network in (teacher, *found.values()):
            store_in_bf16(network)
    wanted = experiment.teacher
    image_sampler = ImageSampler(
        teacher,
        conditions(experiment, info, teacher.codebook.device, teacher_dir, root / "work" / "captions"),
        Filters.of(wanted.model_dump()),
        experiment.evaluate.seed,
        found.get("student"),
        found.get("baseline"),
        Solver(**experiment.trajectories.solver.model_dump()) if experiment.trajectories else None,
        experiment.evaluate.precision,
    )
    for sampler in experiment.evaluate.samplers:
        image_sampler.check(sampler)
    return image_sampler, info


def caption_conditions(teacher_dir: Path, cache: Path, images: int, device: torch.device) -> Conditions:
    """An experiment's test captions in turn, one an image; as classes, the layouts of its scenes where it knows any."""
    from dd.text.captions import caption_file, open_captions, scene_facts

    states = open_captions(teacher_dir, "test", cache, images, device)
    layouts, _ = scene_facts(caption_file(teacher_dir, "test"))
    return Conditions(
        lambda indices: states(indices % len(states)).to(device),
        lambda indices: None if layouts is None else layouts[indices % len(states)],
    )


def floor_labels(protocol_name: str, classes: int) -> Tensor | None:
    """Classes of a data set's floor images (zoo/<dataset>/images.npz), in their order; None where there are none.

    Image i is drawn from the class of floor image i: a data set whose classes differ in size is drawn as it is.
    """
    path = project_root() / "zoo" / protocol_name.removeprefix("fd-") / "images.npz"
    if not protocol_name.startswith("fd-") or not path.is_file():
        return None
    with np.load(path) as arrays:
        labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    return labels if len(labels) and int(labels.max()) < classes else None


def conditions(
    experiment: config.Experiment, info: TeacherInfo, device: torch.device, teacher_dir: Path, cache: Path
) -> Conditions:
    """The test captions in turn; or classes as the data set's own floor has them, in turn, or at random (protocol)."""
    if experiment.condition == "text":
        return caption_conditions(teacher_dir, cache, experiment.evaluate.images, device)
    if not info.classes:
        raise DDError(f"teacher {info.name} has no classes: expected condition 'text' and teacher.captions")
    shares = floor_labels(experiment.evaluate.protocol, len(info.classes))
    if shares is not None:
        return Conditions(lambda i: shares[i % len(shares)].to(device), lambda i: shares[i % len(shares)])
    random = experiment.evaluate.seed if protocol(experiment.evaluate.protocol).labels == "random" else None
    return class_conditions(len(info.classes), device, random)
