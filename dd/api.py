"""Distilled models in a few lines of Python.

model = dd.load("llamagen-fashion")
images = model.sample(["sneaker", "bag"], steps=1, seed=0)   # (2, 28, 28, 3) uint8

scenes = dd.load("t2i-fashion").sample(prompts=["two black boots above a green bag"], steps=2)   # (1, 64, 64, 3)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dd.checkpoints import exported, zoo
from dd.checkpoints.students import load_student, load_student_dir, read_student_info
from dd.checkpoints.teachers import load_teacher, load_teacher_dir, read_info
from dd.config import Experiment, StudentSampler, TeacherSampler, load_experiment, load_params, project_root
from dd.errors import DDError
from dd.flow.grid import Solver
from dd.metrics.images import to_uint8
from dd.models.base import Filters, Student, Teacher
from dd.models.registry import family_of
from dd.sampling.image_sampler import Conditions, ImageSampler
from dd.system.machine import tune_process
from dd.system.names import hint

Steps = int | Literal["teacher"] | Sequence[int]


def load(name: str, device: str | torch.device | None = None) -> Model:
    """A model to draw from.

    name: an experiment of params.yaml (what was trained here, else what ships in the zoo), a student of the zoo, a
    folder that `dd-cli export` wrote, or a repository of the hub (owner/name) that holds such a folder.
    device: default the accelerator if there is one. Raises DDError for an unknown name (with the nearest ones), and
    for weights that are missing or damaged.
    """
    tune_process()
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if Path(name).expanduser().is_dir() or name.startswith((".", "~", "/")):
        return _of_export(exported.read_folder(Path(name).expanduser(), place))
    if exported.is_repository(name):
        return _of_export(exported.read_repository(name, place))
    experiments, students = load_params().experiments, [n for n, e in zoo.entries().items() if e.kind == "student"]
    if name in experiments:
        return _of_experiment(name, load_experiment(name), place)
    if name in students:
        return _of_zoo(name, place)
    raise DDError(f"no experiment or student '{name}'; {hint(name, [*experiments, *students], listed=experiments)}")


@dataclass(frozen=True)
class InTurn(Conditions):
    """Conditions of which there are `count`, taken in turn."""

    count: int


@dataclass(frozen=True)
class Model:
    """A teacher and its distilled student.

    classes: their names, by index. timesteps: the trajectory points that the student was trained on, in groups.
    split: groups before it use the student's logits, the others its continuous head; None: logits everywhere.
    text_encoder: what encodes prompts for a text-to-image teacher (`dd.text.encoders`); None: it draws from classes.
    licence: of the student's weights. teacher_name: the teacher's entry of the zoo. provenance: how the student was
    made, as its own record has it.
    """

    name: str
    teacher: Teacher
    student: Student | None
    classes: tuple[str, ...]
    filters: Filters
    solver: Solver
    timesteps: tuple[int, ...] = (0,)
    split: int | None = None
    text_encoder: str | None = None
    licence: str = ""
    teacher_name: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def exported(self) -> exported.Exported:
        """The same as `dd.publish` takes it. Raises DDError where nothing is distilled yet."""
        if self.student is None:
            raise DDError(f"{self.name}: there is no distilled student yet (dvc repro distill@{self.name})")
        settings = exported.Settings(
            name=self.name,
            family=family_of(self.student).name,
            teacher=self.teacher_name,
            licence=self.licence,
            classes=self.classes,
            timesteps=self.timesteps,
            split=self.split,
            text_encoder=self.text_encoder,
            filters=asdict(self.filters),
            solver=asdict(self.solver),
        )
        return exported.Exported(settings, self.student, self.teacher)

    def sample(
        self,
        classes: str | int | Sequence[str | int] | None = None,
        *,
        prompts: str | Sequence[str] | None = None,
        n: int | None = None,
        steps: Steps = 1,
        seed: int = 0,
        noise_scale: float = 1.0,
        batch: int = 250,
    ) -> NDArray[np.uint8]:
        """Draw images, (N, H, W, 3) uint8.

        classes: names (as printed, or in another case where that is unique) or indices, taken in turn; default all of
        them. prompts: instead of classes, what a text-to-image model is to draw, in turn; a long one is cut, with a
        warning. n: number of images, default one per class or prompt. steps: 1 or 2 evaluations of the student, or the
        groups it starts from (such as [0, 16]), or "teacher".
        seed: image i is a function of (seed, i) and its class alone, so different `steps` draw comparable images.
        noise_scale: standard deviation of the student's noise; above 1 images vary more (docs/evaluation.md).
        Raises DDError for a class that does not exist, an empty prompt, a negative n, a scale that is not above 0,
        steps that the student was not trained for.
        """
        if n is not None and n < 0:
            raise DDError(f"n: expected a number of images, 0 or more, got {n}")
        if batch < 1:
            raise DDError(f"batch: expected at least 1, got {batch}")
        sampler = self._sampler(steps, noise_scale)
        wanted = self._indices(classes) if prompts is None and self.text_encoder is None else None
        conditions = self._classes(wanted) if wanted is not None else self._prompts(prompts, classes)
        n = conditions.count if n is None else n
        image_sampler = ImageSampler(self.teacher, conditions, self.filters, seed, self.student, None, self.solver)
        if reason := image_sampler.missing(sampler):
            raise DDError(f"{self.name}: {reason} (dvc repro distill@{self.name}), or draw with the teacher")
        image_sampler.check(sampler)
        parts = [to_uint8(images).cpu() for images, _ in image_sampler.batches(sampler, n, batch)]
        size = self.teacher.tokenizer.image_size
        images = torch.cat(parts) if parts else torch.empty(0, 3, size, size, dtype=torch.uint8)
        return images.permute(0, 2, 3, 1).contiguous().numpy()

    def class_names(self, classes: str | int | Sequence[str | int] | None = None) -> list[str]:
        """Names of the classes that `sample` would take in turn."""
        return [self.classes[i] if self.classes else str(i) for i in self._indices(classes).tolist()]

    def _indices(self, classes: str | int | Sequence[str | int] | None) -> Tensor:
        given = [classes] if isinstance(classes, str | int) else classes
        if given is None:
            given = range(len(self.classes))
        if not len(given):
            raise DDError("classes: expected at least one, got an empty list")
        return torch.tensor([self._index(one) for one in given])

    def _index(self, one: str | int) -> int:
        if isinstance(one, str) and one in self.classes:
            return self.classes.index(one)
        if isinstance(one, str) and (alike := self._by_folded_name.get(one.casefold())):
            if len({self.classes[index] for index in alike}) > 1:
                names = " and ".join(f"'{self.classes[index]}'" for index in alike)
                raise DDError(f"class '{one}': {self.name} has {names}; spell it as one of them")
            return alike[0]
        if isinstance(one, str) and not one.lstrip("-").isdigit():
            listed = self.classes[:12]
            raise DDError(f"no class '{one}' in {self.name}; {hint(one, self.classes, listed, most=3)}")
        if not 0 <= int(one) < len(self.classes):
            raise DDError(f"class: expected an index in 0..{len(self.classes) - 1} or a name, got {one}")
        return int(one)

    @cached_property
    def _by_folded_name(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for index, name in enumerate(self.classes):
            found.setdefault(name.casefold(), []).append(index)
        return found

    def _sampler(self, steps: Steps | str, noise_scale: float) -> StudentSampler | TeacherSampler:
        if not 0 < noise_scale < math.inf:
            raise DDError(f"noise_scale: expected a number above 0, got {noise_scale:g}")
        if steps == "teacher":
            if noise_scale != 1:
                raise DDError(f"noise_scale: the teacher's noise is always 1, got {noise_scale:g}; leave it out")
            return TeacherSampler(name="teacher")
        return StudentSampler(name="dd", steps=self._points(steps), split=self.split, noise_scale=noise_scale)

    def _points(self, steps: int | str | Sequence[int]) -> tuple[int, ...]:
        if isinstance(steps, str):
            raise DDError(f"steps: expected a number of evaluations, a list of groups, or 'teacher', got '{steps}'")
        if not isinstance(steps, int):
            return tuple(steps)
        if not 1 <= steps <= len(self.timesteps):
            points = ", ".join(map(str, self.timesteps))
            raise DDError(
                f"steps: this student was trained from the points {points}, so it draws in 1..{len(self.timesteps)} "
                f"steps, got {steps}; name other points as a list, or say 'teacher'"
            )
        return tuple(sorted(self.timesteps)[:steps])

    def _classes(self, wanted: Tensor) -> InTurn:
        device = self.teacher.codebook.device
        return InTurn(
            lambda rows: wanted[rows % len(wanted)].to(device), lambda rows: wanted[rows % len(wanted)], len(wanted)
        )

    def _prompts(self, prompts: str | Sequence[str] | None, classes: object) -> InTurn:
        texts = [prompts] if isinstance(prompts, str) else list(prompts or ())
        if self.text_encoder is None:
            raise DDError(
                f"{self.name} draws from classes, not from prompts: name some of {', '.join(self.classes[:12])}"
            )
        if classes is not None or not texts:
            got = "classes" if classes is not None else "none"
            raise DDError(f"{self.name} draws from prompts: expected at least one (--prompt), got {got}")
        from dd.text.encoders import open_encoder

        device = self.teacher.codebook.device
        sizes: Any = self.teacher.get_submodule("transformer").config if self.student is None else self.student.options
        encoded = open_encoder(self.text_encoder, sizes.caption_dim, device).encode(texts, sizes.cls_token_num)
        encoded = encoded.to(device)
        return InTurn(lambda rows: encoded[rows % len(texts)], lambda rows: None, len(texts))


def _of_experiment(name: str, experiment: Experiment, device: torch.device) -> Model:
    """What was trained here if it is there, else what ships."""
    root, settings = project_root(), experiment.teacher
    filters = Filters.of(settings.model_dump())
    solver = Solver(**experiment.trajectories.solver.model_dump()) if experiment.trajectories else Solver()
    timesteps, split = ((0,), None) if experiment.distill is None else _trained(experiment)
    folder, models = root / "data" / name / "teacher", root / "models" / name
    if (folder / "teacher.json").is_file() and (models / "student.json").is_file():
        record = read_student_info(models).provenance
        timesteps = _timesteps(record) or timesteps
        teacher, trained = load_teacher_dir(folder, device), load_student_dir(models, folder, device)
        info = read_info(folder)
        facts = (info.text_encoder, info.licence, info.name, record)
        return Model(name, teacher, trained, info.classes, filters, solver, timesteps, split, *facts)
    entry = zoo.entry(settings.name, "teacher")
    shipped = experiment.student or f"{name}-dd"
    found = zoo.entries().get(shipped)
    student = load_student(shipped, device) if found and found.kind == "student" else None
    record = found.provenance if found else {}
    timesteps = _timesteps(record) or timesteps
    teacher = load_teacher(settings.name, device)
    facts = (entry.text_encoder, found.licence if found else entry.licence, entry.name, record)
    return Model(name, teacher, student, entry.class_names(), filters, solver, timesteps, split, *facts)


def _trained(experiment: Experiment) -> tuple[tuple[int, ...], int | None]:
    assert experiment.distill is not None
    return experiment.distill.timesteps, experiment.distill.split


def _timesteps(provenance: dict[str, Any]) -> tuple[int, ...]:
    """The trajectory points that a student was trained on, as its own record has them."""
    return tuple(provenance.get("settings", {}).get("timesteps", ()))


def _of_zoo(name: str, device: torch.device) -> Model:
    """A student of the zoo with its teacher, sampled as its authors did."""
    entry = zoo.entry(name, "student")
    source = zoo.entry(entry.teacher or "", "teacher")
    rows = entry.published.get("sampling", [{"steps": _timesteps(entry.provenance) or (0,)}])
    longest = max(rows, key=lambda row: len(row["steps"]))
    filters = Filters.of(source.filters)
    return Model(
        name,
        load_teacher(source.name, device),
        load_student(name, device),
        source.class_names(),
        filters,
        Solver(),
        tuple(longest["steps"]),
        longest.get("split"),
        source.text_encoder,
        entry.licence,
        source.name,
        entry.provenance,
    )


def _of_export(found: exported.Exported) -> Model:
    """What a folder or repository holds."""
    settings = found.settings
    return Model(
        settings.name,
        found.teacher,
        found.student,
        settings.classes,
        Filters(**(settings.filters or {})),
        Solver(**(settings.solver or {})),
        settings.timesteps,
        settings.split,
        settings.text_encoder,
        settings.licence,
        settings.teacher,
    )


def save_grid(
    images: NDArray[np.uint8],
    path: Path,
    columns: int = 10,
    gap: int = 2,
    scale: int = 2,
    titles: Sequence[str] | None = None,
) -> None:
    """Write images (N, H, W, 3) as one PNG: rows of `columns`, `gap` white pixels between, enlarged `scale` times.

    titles: texts (N) that stand below the images, in as many lines as the longest needs.
    """
    from PIL import Image, ImageDraw, ImageFont

    from dd.system.files import atomic_path

    if not len(images):
        raise DDError("expected at least one image to write, got none")
    count, height, width, _ = (size * scale if axis in (1, 2) else size for axis, size in enumerate(images.shape))
    gap, columns = gap * scale, min(columns, count)
    font, line = ImageFont.load_default(LETTERS), LETTERS + 3
    lines = [_wrap(text, width, font.getlength) for text in titles or ()]
    foot = line * max(map(len, lines), default=0)
    rows = -(-count // columns)
    picture = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + foot + gap) - gap), "white")
    draw = ImageDraw.Draw(picture)
    for index, image in enumerate(images):
        left, top = (index % columns) * (width + gap), (index // columns) * (height + foot + gap)
        picture.paste(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST), (left, top))
        for number, text in enumerate(lines[index] if lines else ()):
            draw.text((left + 2, top + height + number * line), text, fill="black", font=font)
    with atomic_path(path) as scratch:
        picture.save(scratch, format="PNG")


LETTERS = 11  # height of the titles in pixels


def _wrap(text: str, width: int, measure: Callable[[str], float]) -> list[str]:
    """Lines of whole words, none wider than `width` pixels unless one word is."""
    lines: list[str] = []
    for word in text.split():
        if lines and measure(f"{lines[-1]} {word}") <= width - 4:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
