"""Draws the images of every sampler of an experiment, from the same noise and classes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dd import config
from dd.errors import DDError
from dd.flow.grid import Solver
from dd.models.base import Condition, Filters, Student, Teacher
from dd.models.precision import Precision, autocast
from dd.sampling import samplers as sampling
from dd.trajectories.noise import noise, uniform

Batch = tuple[Tensor, Tensor | None]  # images (B, C, H, W), classes (B,) or None


@dataclass(frozen=True)
class Conditions:
    """What each image is drawn from: (B,) sample indices to a batch of conditions, and its classes where it has any."""

    condition: Callable[[Tensor], Condition]
    labels: Callable[[Tensor], Tensor | None]


def class_conditions(classes: int, device: torch.device, random_seed: int | None = None) -> Conditions:
    """Classes in turn (balanced), or drawn at random from a seed (the DD authors' protocol)."""

    def labels(indices: Tensor) -> Tensor:
        if random_seed is None:
            return indices % classes
        return (uniform(random_seed, indices, 1)[:, 0] * classes).long()

    return Conditions(lambda indices: labels(indices).to(device), labels)


class ImageSampler:
    """All samplers of one experiment. Sample index i has the same noise and condition in every one of them.

    baseline: the set predictor of `skip` and `onestep*`. precision: of the transformers; the map and the tokenizer stay
    in float32. Samplers share how they begin: the teacher's images, and the student's
    first step, are kept.
    """

    ROOM = 1 << 28  # bytes, for what is kept

    def __init__(
        self,
        teacher: Teacher,
        conditions: Conditions,
        filters: Filters,
        seed: int,
        student: Student | None = None,
        baseline: Student | None = None,
        solver: Solver | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.precision: Precision = precision
        self.teacher, self.student, self.baseline = teacher, student, baseline
        self.conditions, self.filters, self.seed, self.solver = conditions, filters, seed, solver
        self.codebook = teacher.codebook
        self.device = self.codebook.device
        self._kept: dict[tuple[str, bytes], Tensor] = {}
        self._room = self.ROOM

    def missing(self, sampler: config.Sampler) -> str | None:
        """Why a sampler cannot draw, or None."""
        if isinstance(sampler, config.StudentSampler | config.TeacherInvolvedSampler) and self.student is None:
            return "there is no distilled student: run stage 'distill'"
        if isinstance(sampler, config.SkipSampler | config.OneStepSampler) and self.baseline is None:
            return "there is no set predictor: set distill.baseline.steps above 0 and run stage 'distill'"
        return None

    def check(self, sampler: config.Sampler) -> None:
        """Raise DDError for settings that this teacher cannot have, before anything is drawn."""
        groups = len(self.teacher.groups)
        if isinstance(sampler, config.StudentSampler | config.TeacherInvolvedSampler):
            sampling.check_steps(sampler.steps, groups)
            if sampler.split is not None and sampler.split > groups:
                raise DDError(f"split must lie in 0..{groups} (the teacher's groups), got {sampler.split}")
        if isinstance(sampler, config.TeacherInvolvedSampler) and sampler.teacher_start >= sampler.steps[-1]:
            last = sampler.steps[-1] - 1
            raise DDError(f"teacher_start must lie in 0..{last} (before the last step), got {sampler.teacher_start}")
        released = isinstance(sampler, config.TeacherInvolvedSampler) and sampler.released_prefix
        if released and self.teacher.released_prefix is None:
            raise DDError(
                f"released_prefix: the released code of {type(self.teacher).__name__} has no prefix of its own; drop it"
            )
        if isinstance(sampler, config.SkipSampler) and sampler.n >= groups:
            raise DDError(f"skip: n must lie in 1..{groups - 1} (the teacher has {groups} groups), got {sampler.n}")

    def evaluations(self, sampler: config.Sampler) -> int | None:
        """Network evaluations of one image, counted as in the paper's tables."""
        groups = len(self.teacher.groups)
        match sampler:
            case config.TeacherSampler():
                return groups
            case config.StudentSampler():
                return len(sampler.steps)
            case config.TeacherInvolvedSampler():
                first = max(len(sampler.steps) - 1, 1) if sampler.teacher_start else 0
                return first + sampler.steps[-1] - sampler.teacher_start + 1
            case config.SkipSampler():
                return groups - sampler.n + 1
            case config.OneStepSampler():
                return 1
        return None

    def passes(self, sampler: config.Sampler) -> int | None:
        """Passes of a transformer that one image takes, one after the other; guidance widens them, it adds none."""
        evaluations = self.evaluations(sampler)
        match sampler:
            case config.StudentSampler() if self.student:
                return len(sampler.steps) * self.student.passes
            case config.TeacherInvolvedSampler() if self.student:
                drawn = sampler.steps[-1] - sampler.teacher_start
                assert evaluations is not None
                return drawn + (evaluations - drawn) * self.student.passes
            case config.SkipSampler() if self.baseline:
                return len(self.teacher.groups) - sampler.n + self.baseline.passes
            case config.OneStepSampler() if self.baseline:
                return self.baseline.passes
        return evaluations

    def parameters(self, sampler: config.Sampler) -> int | None:
        """Parameters of the network that is evaluated last (the tokenizer's are not counted, as in the paper)."""
        network: Any = None
        match sampler:
            case config.TeacherSampler():
                network = self.teacher
            case config.StudentSampler() | config.TeacherInvolvedSampler():
                network = self.student
            case config.SkipSampler() | config.OneStepSampler():
                network = self.baseline
        if network is None:
            return None
        total = sum(p.numel() for p in network.parameters())
        return total - (sum(p.numel() for p in self.teacher.tokenizer.parameters()) if network is self.teacher else 0)

    @torch.inference_mode()
    def codes(self, sampler: config.Sampler, indices: Tensor, timed: bool = False) -> Tensor:
        """Code vectors (B, L, C) of sample indices (B,).

        timed: what speed is measured by. Nothing is taken over, and the teacher draws at random, not through the map.
        """
        with autocast(self.precision, self.device.type):
            return self._codes(sampler, indices, timed)

    def _codes(self, sampler: config.Sampler, indices: Tensor, timed: bool) -> Tensor:
        condition, groups = self.conditions.condition(indices), self.teacher.groups
        match sampler:
            case config.TeacherSampler() if timed:
                generator = self._generator(indices)
                return self._teacher(
                    indices, lambda state, e: sampling.draw(self.teacher.log_probs(state), generator), condition
                )
            case config.TeacherSampler():
                draw = lambda state, e: sampling.map_group(self.teacher, state, e, self.solver)  # noqa: E731
                return self._once("teacher", indices, lambda: self._teacher(indices, draw, condition))
            case config.StudentSampler():
                assert self.student is not None
                e = self._noise(indices, sampler.noise_scale)
                begun = None if timed else self._first_step(sampler, indices)
                return sampling.sample(self.student, self.codebook, e, condition, sampler.steps, sampler.split, begun)
            case config.TeacherInvolvedSampler():
                assert self.student is not None
                alone = timed or not sampler.teacher_start
                with prefix_as_released(self.teacher, sampler.released_prefix):
                    return sampling.sample_with_teacher(
                        self.student,
                        self.teacher,
                        self._noise(indices),
                        condition,
                        sampler.steps,
                        sampler.teacher_start,
                        self.filters,
                        sampler.split,
                        self.solver,
                        None if alone else self._first_step(sampler, indices),
                        sampler.noise_scale,
                    )
            case config.SkipSampler() | config.OneStepSampler():
                assert self.baseline is not None
                taken = len(groups) - sampler.n if isinstance(sampler, config.SkipSampler) else 0
                drawn = None if timed else self._kept.get(_key("teacher", indices))
                return sampling.one_shot(
                    self.baseline,
                    self.teacher,
                    condition,
                    self.filters,
                    self._generator(indices),
                    taken,
                    None if drawn is None else drawn[:, : groups.starts[taken]],
                )
        raise DDError(f"sampler {sampler.name} draws nothing: it is a floor")

    def _first_step(self, begins: config.StudentSampler | config.TeacherInvolvedSampler, indices: Tensor) -> Tensor:
        """(B, L, C): one step of the student, which several steps begin with."""
        assert self.student is not None
        student, condition, split = self.student, self.conditions.condition(indices), begins.split
        e = self._noise(indices, begins.noise_scale)
        return self._once(
            f"student {split} {begins.noise_scale}",
            indices,
            lambda: sampling.sample(student, self.codebook, e, condition, split=split),
        )

    def _once(self, what: str, indices: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """`make()` for these images, or what it gave before, as far as there is room to keep it."""
        key = _key(what, indices)
        if key in self._kept:
            return self._kept[key]
        made = make()
        size = made.numel() * made.element_size()
        if size <= self._room:
            self._kept[key] = made
            self._room -= size
        return made

    def images(self, sampler: config.Sampler, indices: Tensor) -> Tensor:
        """Images (B, 3, H, W) float in about [-1, 1]."""
        with torch.inference_mode():
            return self.teacher.decode(self.codes(sampler, indices))

    def batches(self, sampler: config.Sampler, count: int, size: int) -> Iterator[Batch]:
        """`count` images in batches of `size`, with their classes."""
        for start in range(0, count, size):
            indices = torch.arange(start, min(start + size, count))
            yield self.images(sampler, indices), self.conditions.labels(indices)

    def seconds_per_image(self, sampler: config.Sampler, batch: int, repeats: int = 2) -> float:
        """Fastest of `repeats` batches after a warm-up of one, decoding included; the teacher draws at random."""
        indices = torch.arange(batch)
        times = []
        for _ in range(repeats + 1):
            self._synchronise()
            started = time.perf_counter()
            with torch.inference_mode():
                self.teacher.decode(self.codes(sampler, indices, timed=True))
            self._synchronise()
            times.append(time.perf_counter() - started)
        return min(times[1:]) / batch

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _teacher(self, indices: Tensor, draw: Callable[[Any, Tensor], Tensor], condition: Condition) -> Tensor:
        state = self.teacher.start(condition, self.filters)
        e = self._noise(indices)
        tokens = []
        for group in range(len(self.teacher.groups)):
            tokens.append(draw(state, e[:, self.teacher.groups.slice(group)]))
            self.teacher.advance(state, tokens[-1])
        return self.codebook[torch.cat(tokens, 1)]

    def _noise(self, indices: Tensor, scale: float = 1.0) -> Tensor:
        return scale * noise(self.seed, indices, self.teacher.groups.length, self.codebook.shape[1]).to(self.device)

    def _generator(self, indices: Tensor) -> torch.Generator:
        """Random numbers of a batch: a function of the seed and its first index."""
        return torch.Generator(self.device).manual_seed((self.seed << 32) + int(indices[0]))


def _key(what: str, indices: Tensor) -> tuple[str, bytes]:
    return what, indices.numpy().tobytes()


@contextmanager
def prefix_as_released(teacher: Teacher, wanted: bool) -> Iterator[None]:
    """While it lasts, and if `wanted`, the teacher takes prefixes in as its authors' released code does."""
    if not wanted:
        yield
        return
    before, teacher.released_prefix = teacher.released_prefix, True
    try:
        yield
    finally:
        teacher.released_prefix = before


def sampler_label(sampler: config.Sampler) -> str:
    """Name of a sampler in tables and plots: `dd 0,16`, `dd+teacher 0,16 from 8`, `skip-1`."""
    if sampler.label:
        return sampler.label
    match sampler:
        case config.StudentSampler():
            split = "" if sampler.split is None else f" split {sampler.split}"
            return f"dd {','.join(map(str, sampler.steps))}{split}{_noise_label(sampler.noise_scale)}"
        case config.TeacherInvolvedSampler():
            quirk = ", released prefix" if sampler.released_prefix else ""
            wide = _noise_label(sampler.noise_scale)
            return f"dd+teacher {','.join(map(str, sampler.steps))} from {sampler.teacher_start}{wide}{quirk}"
        case config.SkipSampler():
            return f"skip-{sampler.n}"
    return sampler.name


def _noise_label(scale: float) -> str:
    return "" if scale == 1 else f" noise {scale:g}"
