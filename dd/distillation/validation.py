"""A small Frechet distance during training: whether the pictures improve, long before the evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dd.errors import DDError
from dd.metrics.distances import frechet_by_eigenvalues
from dd.metrics.extractors import open_extractor
from dd.metrics.features import Extractor
from dd.metrics.images import RgbBatches
from dd.metrics.moments import Gaussian, Moments
from dd.metrics.protocols import protocol
from dd.metrics.references import load_reference
from dd.models.base import Student, Teacher
from dd.sampling.image_sampler import Conditions, class_conditions
from dd.sampling.samplers import sample
from dd.trajectories.noise import noise

SEED = 2_147_483_629  # of the probe's noise: that of no trajectories and of no evaluation


@dataclass(frozen=True)
class Probe:
    """One-step samples of the averaged student against the protocol's reference, for `dd.distillation.task.Task.probe`.

    The same noise every time, and no random generator: training goes on as if nobody had looked. Few images bias the
    distance upwards, so it bears its own name (`fd_500`) and is compared with itself only.
    every: training steps between two looks; last: a step that is looked at anyway; split: as in `sampling.sample`.
    """

    teacher: Teacher
    conditions: Conditions
    extractor: Extractor
    reference: Gaussian
    images: int
    every: int
    last: int
    split: int | None = None
    batch: int = 250

    @torch.no_grad()
    def __call__(self, student: Student, step: int) -> dict[str, float]:
        """{fd_<images>: distance}, or nothing at a step that is not its turn."""
        if step % self.every and step != self.last:
            return {}
        rgb, moments = RgbBatches(self.extractor.image_size), Moments(self.extractor.feature_width, self.images, 1)
        for start in range(0, self.images, self.batch):
            indices = torch.arange(start, min(start + self.batch, self.images))
            moments.add(self.extractor(rgb(self._draw(student, indices))).features.numpy())
        return {f"fd_{self.images}": frechet_by_eigenvalues(moments.gaussian(), self.reference)}

    def _draw(self, student: Student, indices: torch.Tensor) -> torch.Tensor:
        codebook = self.teacher.codebook
        e = noise(SEED, indices, self.teacher.groups.length, codebook.shape[1]).to(codebook.device)
        codes = sample(student, codebook, e, self.conditions.condition(indices), split=self.split)
        return self.teacher.decode(codes)


def open_probe(
    teacher: Teacher, classes: int, name: str, images: int, every: int, last: int, split: int | None = None
) -> Probe:
    """A probe of the protocol `name`, opened before training. Raises DDError where something is missing."""
    if not classes:
        raise DDError("distill.probe: expected a teacher with classes, got one of captions: set its every to 0")
    chosen, device = protocol(name), teacher.codebook.device
    extractor = open_extractor(chosen.extractor, chosen.extractor_path(None), device)
    reference = load_reference(chosen.reference_path(None), chosen, extractor).gaussian
    return Probe(teacher, class_conditions(classes, device), extractor, reference, images, every, last, split)
