"""Draws the images of every sampler of an experiment, from the same noise and classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dd import config
from dd.errors import DDError
from dd.flow.grid import Solver
from dd.flow.map import Codes
from dd.models.base import Condition, Filters, Student, Teacher
from dd.models.precision import Precision, autocast
from dd.sampling import samplers as sampling
from dd.sampling.timing import median_seconds, shortest_seconds
from dd.trajectories.noise import noise, uniform
from dd.trajectories.trajectory import Mapped, decode, multinomial

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


@dataclass(frozen=True)
class Inputs:
    """What a batch of images is drawn from: sample indices (B,), their conditions, their noise (B, L, C)."""

    indices: Tensor
    condition: Condition
    noise: Tensor


class ImageSampler:
    """All samplers of one experiment. Sample index i has the same noise and condition in every one of them.

    baseline: the set predictor of `skip` and `onestep*`. precision: of the transformers; the map and the tokenizer stay
    in float32. Samplers share how they begin: the teacher's tokens, and the student's first step, are kept as far as
    there is room; what is not kept is computed again, with the same result.
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

    @cached_property
    def _codes_of_map(self) -> Codes:
        return Codes.prepare(self.codebook)

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
            wanted = sampler.passes
            if self.student is not None and wanted is not None and wanted != self.student.passes:
                raise DDError(
                    f"{sampler_label(sampler)}: expected a student of passes: {wanted}, it takes "
                    f"{self.student.passes}: set distill.student.refinements to {wanted - 1}, or correct the row"
                )
        if isinstance(sampler, config.TeacherInvolvedSampler) and sampler.teacher_start >= sampler.steps[-1]:
            last = sampler.steps[-1] - 1
            raise DDError(f"teacher_start must lie in 0..{last} (before the last step), got {sampler.teacher_start}")
        released = isinstance(sampler, config.TeacherInvolvedSampler) and sampler.released_prefix
        if released and self.teacher.released_prefix is None:
            raise DDError(
                f"released_prefix: the released code of {type(self.teacher).__name__} has no prefix of its own; drop it"
            )
        if isinstance(sampler, config.TeacherSampler) and sampler.temperature and not self.teacher.has_temperature:
            raise DDError(f"temperature: {type(self.teacher).__name__} has none; drop it from the sampler 'teacher'")
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
    def codes(self, sampler: config.Sampler, indices: Tensor) -> Tensor:
        """Code vectors (B, L, C) of sample indices (B,)."""
        return self._codes(sampler, self._inputs(indices), timed=False)

    def timed(self, sampler: config.Sampler, indices: Tensor) -> Callable[[], Tensor]:
        """A call that draws and decodes the images of sample indices (B,), and is what speed is measured by.

        It takes nothing over from other samplers, and the teacher draws at random, not through the map. Conditions and
        noise are made beforehand: they are the sampler's inputs.
        """
        inputs = self._inputs(indices)

        @torch.inference_mode()
        def run() -> Tensor:
            return self.teacher.decode(self._codes(sampler, inputs, timed=True))

        return run

    def _inputs(self, indices: Tensor) -> Inputs:
        e = noise(self.seed, indices, self.teacher.groups.length, self.codebook.shape[1])
        return Inputs(indices, self.conditions.condition(indices), e.to(self.device))

    def _codes(self, sampler: config.Sampler, inputs: Inputs, timed: bool) -> Tensor:
        with autocast(self.precision, self.device.type):
            match sampler:
                case config.TeacherSampler():
                    return self.codebook[self._teacher_row(sampler, inputs, timed)]
                case config.StudentSampler():
                    return self._with_student(sampler, inputs, timed)
                case config.TeacherInvolvedSampler():
                    return self._with_both(sampler, inputs, timed)
                case config.SkipSampler() | config.OneStepSampler():
                    return self._at_once(sampler, inputs, timed)
        raise DDError(f"sampler {sampler.name} draws nothing: it is a floor")

    def _teacher_tokens(self, inputs: Inputs, timed: bool, stop: int | None = None) -> Tensor:
        """(B, L): what the teacher draws, or (B, n) in the groups before `stop`."""
        if timed:
            draw = multinomial(self._generator(inputs))
            return decode(self.teacher, inputs.condition, self.filters, draw, stop=stop)
        if stop is not None and (known := self._kept.get(_key("teacher", inputs))) is not None:
            return known[:, : self.teacher.groups.starts[stop]].long()

        def make() -> Tensor:
            draw = Mapped(inputs.noise, self._codes_of_map, self.solver)
            return decode(self.teacher, inputs.condition, self.filters, draw, stop=stop)

        return make() if stop is not None else self._once("teacher", inputs, make)

    def _teacher_row(self, sampler: config.TeacherSampler, inputs: Inputs, timed: bool) -> Tensor:
        """(B, L): what the teacher draws with the knobs of its row."""
        filters = self.filters_of(sampler)
        if filters == self.filters and (timed or sampler.noise_scale == 1):
            return self._teacher_tokens(inputs, timed)
        e = _scaled(inputs.noise, sampler.noise_scale)
        draw = multinomial(self._generator(inputs)) if timed else Mapped(e, self._codes_of_map, self.solver)
        return decode(self.teacher, inputs.condition, filters, draw)

    def filters_of(self, sampler: config.TeacherSampler) -> Filters:
        """The distribution that this row draws from: that of the pairs, but for what it sets itself."""
        guidance = self.filters.guidance if sampler.guidance is None else sampler.guidance
        temperature = self.filters.temperature if sampler.temperature is None else sampler.temperature
        return replace(self.filters, guidance=guidance, temperature=temperature)

    def _with_student(self, sampler: config.StudentSampler, inputs: Inputs, timed: bool) -> Tensor:
        assert self.student is not None
        begun = None if timed else self._first_step(sampler, inputs)
        e = _scaled(inputs.noise, sampler.noise_scale)
        return sampling.sample(self.student, self.codebook, e, inputs.condition, sampler.steps, sampler.split, begun)

    def _with_both(self, sampler: config.TeacherInvolvedSampler, inputs: Inputs, timed: bool) -> Tensor:
        assert self.student is not None
        alone = timed or not sampler.teacher_start
        with prefix_as_released(self.teacher, sampler.released_prefix):
            return sampling.sample_with_teacher(
                self.student,
                self.teacher,
                inputs.noise,
                inputs.condition,
                sampler.steps,
                sampler.teacher_start,
                self.filters,
                sampler.split,
                self.solver,
                None if alone else self._first_step(sampler, inputs),
                sampler.noise_scale,
                self._codes_of_map,
            )

    def _at_once(self, sampler: config.SkipSampler | config.OneStepSampler, inputs: Inputs, timed: bool) -> Tensor:
        """Behind the teacher's own tokens, so that an image is that of the teacher's row as far as they go."""
        assert self.baseline is not None
        prefix = None
        if isinstance(sampler, config.SkipSampler):
            prefix = self._teacher_tokens(inputs, timed, len(self.teacher.groups) - sampler.n)
        return sampling.one_shot(self.baseline, self.teacher, inputs.condition, self._generator(inputs), prefix)

    def _first_step(self, begins: config.StudentSampler | config.TeacherInvolvedSampler, inputs: Inputs) -> Tensor:
        """(B, L, C): one step of the student, which several steps begin with."""
        assert self.student is not None
        student, split, condition = self.student, begins.split, inputs.condition
        e, what = _scaled(inputs.noise, begins.noise_scale), f"student {split} {begins.noise_scale}"
        if split is None:
            return self.codebook[self._once(what, inputs, lambda: sampling.first_tokens(student, e, condition))]
        return self._once(what, inputs, lambda: sampling.sample(student, self.codebook, e, condition, split=split))

    def _once(self, what: str, inputs: Inputs, make: Callable[[], Tensor]) -> Tensor:
        """`make()` for these images, or what it gave before.

        Tokens are kept in 16 bits (1.4 KB an image of VAR), codes in float32 (87 KB).
        """
        key = _key(what, inputs)
        if (known := self._kept.get(key)) is not None:
            return known if known.is_floating_point() else known.long()
        made = make()
        small = made if made.is_floating_point() or len(self.codebook) > 1 << 16 else made.to(torch.uint16)
        size = small.numel() * small.element_size()
        if size <= self._room:
            self._kept[key] = small
            self._room -= size
        return made

    def images(self, sampler: config.Sampler, indices: Tensor) -> Tensor:
        """Images (B, 3, H, W) float in about [-1, 1]."""
        with torch.inference_mode():
            return self.teacher.decode(self.codes(sampler, indices))

    def batches(self, sampler: config.Sampler, count: int, size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """`count` images in batches of `size`, with their classes. rank, world: every world-th batch."""
        for start in range(rank * size, count, world * size):
            indices = torch.arange(start, min(start + size, count))
            yield self.images(sampler, indices), self.conditions.labels(indices)

    def seconds_per_image(self, sampler: config.Sampler, batch: int) -> float:
        """Throughput: of the fastest of some batches after a warm-up, decoding included."""
        return shortest_seconds(self.timed(sampler, torch.arange(batch)), self.device) / batch

    def latency_seconds(self, sampler: config.Sampler) -> float:
        """Latency: the median time of one image at batch 1 after a warm-up, decoding included."""
        return median_seconds(self.timed(sampler, torch.arange(1)), self.device)

    def _generator(self, inputs: Inputs) -> torch.Generator:
        """Random numbers of a batch: a function of the seed and its first index."""
        return torch.Generator(self.device).manual_seed((self.seed << 32) + int(inputs.indices[0]))


def _key(what: str, inputs: Inputs) -> tuple[str, bytes]:
    return what, inputs.indices.numpy().tobytes()


def _scaled(e: Tensor, scale: float) -> Tensor:
    return e if scale == 1 else scale * e


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
        case config.TeacherSampler():
            own = {"guidance": sampler.guidance, "temperature": sampler.temperature}
            set_here = "".join(f" {name} {value:g}" for name, value in own.items() if value is not None)
            return f"teacher{set_here}{_noise_label(sampler.noise_scale)}"
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
