"""`dd-cli select`: knobs that are set after training, chosen on a validation reference for teacher and student alike.

The reference that the table is measured by is refused, and so is one that holds images of it. One knob after the
other: guidance and temperature of the teacher's own row, then the width of everybody's noise, each the value of least
distance among the same values.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dd import config
from dd.errors import DDError
from dd.evaluation.measure import Evaluation, open_evaluation
from dd.metrics import distances
from dd.metrics.images import RgbBatches
from dd.metrics.moments import Estimate, Moments
from dd.metrics.protocols import VALIDATION, protocol
from dd.metrics.references import Reference, load_reference
from dd.sampling.experiment import open_image_sampler
from dd.sampling.image_sampler import ImageSampler, sampler_label
from dd.system.device import choose_device
from dd.system.files import write_text

Drawn = config.TeacherSampler | config.StudentSampler | config.TeacherInvolvedSampler
FACTORS = {
    "guidance": (0.8, 0.9, 1.0, 1.1, 1.25),
    "temperature": (0.9, 1.0, 1.1),
    "noise_scale": (0.95, 1.0, 1.04, 1.08, 1.12, 1.18),
}
SHARED = 0.01  # of the validation images may equal one of the reference's: data sets hold some image twice


@dataclass(frozen=True)
class Knob:
    """One knob of one row: its distance to the validation reference at each value that was tried."""

    row: str
    name: str
    distances: dict[float, Estimate]

    @property
    def best(self) -> float:
        """The value of least distance."""
        return min(self.distances, key=lambda value: self.distances[value].value)

    def __str__(self) -> str:
        shown = [f"{'*' if v == self.best else ''}{v:g}: {d.value:.3f}" for v, d in self.distances.items()]
        return f"{self.row}, {self.name}: {', '.join(shown)}"


@dataclass(frozen=True)
class Selection:
    """Rows of an experiment as they are to be, by their place in evaluate.samplers; reference: what chose them."""

    experiment: str
    reference: str
    rows: dict[int, Drawn]


def open_validation(
    experiment: config.Experiment, name: str | None, images: int, root: Path, device: str
) -> Evaluation:
    """The validation reference, opened: by default that of the experiment's own protocol. Raises DDError for bad ones.

    Refused: the reference that reports, by name or by content, and one that shares images with it.
    """
    reports = protocol(experiment.evaluate.protocol)
    wanted = protocol(name or reports.name + VALIDATION)
    if wanted.name == reports.name:
        raise DDError(
            f"select: {wanted.name} is the reference that the table is measured by: choose on another one, for example "
            f"{reports.name}{VALIDATION}"
        )
    opened = open_evaluation(wanted, images, root / "work" / "select", device=device)
    if opened.extractor is None or opened.reference is None:
        raise DDError(f"select: {opened.missing}")
    if (wanted.extractor, wanted.extractor_file) == (reports.extractor, reports.extractor_file):
        path = reports.reference_path(experiment.evaluate.reference)
        check_disjoint(opened.reference, load_reference(path, reports, opened.extractor))
    return opened


def check_disjoint(validation: Reference, reports: Reference) -> None:
    """Raise DDError where images of the validation reference are in the one that reports (features tell them apart)."""
    if validation.sha256 == reports.sha256:
        raise DDError(f"{validation.path} is the reference that the table is measured by: make one of other images")
    if validation.features is None or reports.features is None:
        raise DDError(f"{validation.path}: expected references that hold features, to see that they share no images")
    known = {row.tobytes() for row in reports.features.numpy()}
    shared = sum(row.tobytes() in known for row in validation.features.numpy())
    if shared > SHARED * len(validation.features):
        raise DDError(
            f"{validation.path}: {shared} of {len(validation.features)} images are in {reports.path.name} too, which "
            "the table is measured by: make it of other images"
        )


class Search:
    """The distance of one row after the other to the validation reference, all from the same noise."""

    def __init__(self, image_sampler: ImageSampler, validation: Evaluation, batch: int) -> None:
        assert validation.extractor
        assert validation.reference
        self.image_sampler, self.batch, self.images = image_sampler, batch, validation.images
        self.extractor, self.reference = validation.extractor, validation.reference

    @cache  # noqa: B019  (one search is one run)
    def distance(self, sampler: Drawn) -> Estimate:
        """Frechet distance of `images` images of a row."""
        rgb, moments = RgbBatches(self.extractor.image_size), Moments(self.extractor.feature_width, self.images)
        for images, _ in self.image_sampler.batches(sampler, self.images, self.batch):
            moments.add(self.extractor(rgb(images)).features.numpy())
        return distances.frechet_estimate(moments, self.reference.gaussian)

    def grid(self, knob: str) -> tuple[float, ...]:
        """What is tried of a knob: the same factors of the filters that pairs were drawn with, and of noise of 1."""
        standard = 1.0 if knob == "noise_scale" else getattr(self.image_sampler.filters, knob)
        return tuple(dict.fromkeys(round(factor * standard, 4) for factor in FACTORS[knob]))

    def tune(self, sampler: Drawn, show: Callable[[Knob], None]) -> Drawn:
        """The row with its best values: one knob after the other, each beginning at its standard."""
        without = () if self.image_sampler.teacher.has_temperature else ("temperature",)
        knobs = [knob for knob in FACTORS if knob in type(sampler).model_fields and knob not in without]
        row = sampler.model_copy(update={knob: 1.0 if knob == "noise_scale" else None for knob in knobs})
        for knob in knobs:
            tried = {value: self.distance(row.model_copy(update={knob: value})) for value in self.grid(knob)}
            found = Knob(sampler_label(row), knob, tried)
            as_pairs = knob != "noise_scale" and found.best == getattr(self.image_sampler.filters, knob)
            row = row.model_copy(update={knob: None if as_pairs else found.best})
            show(found)
        return row


def select(name: str, reference: str | None, images: int, show: Callable[[Knob], None]) -> Selection:
    """Try every knob of every row of an experiment that is drawn, and show each. Raises DDError."""
    root, experiment = config.project_root(), config.load_experiment(name)
    if experiment.condition == "text":
        raise DDError(
            f"select: {name} draws from captions, and none are held out for validation: set its knobs by hand"
        )
    device = choose_device(experiment.device, name)
    validation = open_validation(experiment, reference, images, root, device)
    image_sampler, _ = open_image_sampler(name, root, device)
    pairs = experiment.trajectories.seed if experiment.trajectories else 0
    image_sampler.seed = 1 + max(experiment.evaluate.seed, pairs)  # noise of neither the table nor the training
    search = Search(image_sampler, validation, experiment.evaluate.batch)
    chosen = {"selected_on": validation.protocol.name}
    rows = {
        place: search.tune(sampler, show).model_copy(update=chosen)
        for place, sampler in enumerate(experiment.evaluate.samplers)
        if isinstance(sampler, Drawn) and not image_sampler.missing(sampler)
    }
    return Selection(name, validation.protocol.name, rows)


def write_selection(path: Path, selection: Selection) -> None:
    """Put the chosen knobs into params.yaml, comments and layout kept. Raises DDError if it has changed meanwhile."""
    from ruamel.yaml import YAML

    parser = YAML()
    parser.preserve_quotes, parser.width = True, 4096
    parser.indent(mapping=2, sequence=4, offset=2)
    data = parser.load(path.read_text(encoding="utf-8"))
    rows = data["experiments"][selection.experiment]["evaluate"]["samplers"]
    for place, sampler in selection.rows.items():
        if place >= len(rows) or rows[place]["name"] != sampler.name:
            raise DDError(f"{path.name}: the samplers of {selection.experiment} have changed meanwhile: select again")
        for knob in (*FACTORS, "selected_on"):
            value = getattr(sampler, knob, None)
            if value is None or (knob == "noise_scale" and value == 1):
                rows[place].pop(knob, None)
            else:
                rows[place][knob] = value
    text = io.StringIO()
    parser.dump(data, text)
    write_text(path, text.getvalue())
    config.load_params(path)
