"""One set of images under one protocol, and what the other libraries make of the same images (`dd-cli evaluate`).

FID names a family of numbers: they differ by the network's copy, the resize, the number of images and the reference.
Here every figure stands beside the others with its own reference; one whose network or reference is not on this machine
is null, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dd import config
from dd.checkpoints import zoo
from dd.checkpoints.teachers import read_info
from dd.errors import DDError
from dd.evaluation.export import choose, export
from dd.evaluation.measure import Evaluation, open_evaluation
from dd.evaluation.sums import Measured, Part, Sums
from dd.metrics.images import RgbBatches, image_files, read_images
from dd.metrics.moments import Gaussian
from dd.metrics.protocols import ADM, CLEAN, DD, protocol
from dd.metrics.sample_files import open_samples
from dd.sampling.image_sampler import sampler_label
from dd.system.device import choose_device
from dd.system.names import file_name

TOLERANCE = 0.05  # of a FID of 50,000 images to the published one of the same weights
BATCH = 250


@dataclass(frozen=True)
class Figure:
    """One distance of the images. error: standard error; missing: why there is no value."""

    metric: str
    by: str
    value: float | None
    error: float | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Published:
    """The authors' number for the same weights. within: whether ours is at most TOLERANCE away; None: no comparison."""

    value: float
    difference: float | None
    within: bool | None


@dataclass(frozen=True)
class Report:
    """Figures of one set of images: the protocol's own first. row: all its metrics, as in rows.json."""

    what: str
    protocol: str
    images: int
    figures: list[Figure]
    row: dict[str, Any]
    published: Published | None = None
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Source:
    """Images that can be read several times: an npz or a folder."""

    path: Path
    count: int

    def batches(self) -> Iterator[Tensor]:
        """(B, 3, H, W) uint8."""
        if self.path.is_dir():
            yield from read_images(image_files(self.path), BATCH)
            return
        for piece in open_samples(self.path).pieces(BATCH):
            yield torch.from_numpy(np.array(piece)).permute(0, 3, 1, 2).contiguous()


def open_source(path: Path) -> Source:
    """An npz of uint8 images, or a folder of images. Raises DDError for others."""
    if path.is_dir():
        return Source(path, len(image_files(path)))
    samples = open_samples(path)
    if samples.dtype != np.uint8 or len(samples.shape) != 4 or samples.shape[3] != 3:
        raise DDError(
            f"{path}: expected uint8 images of shape (N, H, W, 3), got {samples.dtype} of {samples.shape}: "
            f"see 'dd-cli check-npz {path}'"
        )
    return Source(path, samples.shape[0])


def evaluate_images(path: Path, name: str, scratch: Path, device: str = "cpu") -> Report:
    """An npz or a folder under a protocol, with the other libraries' figures. Raises DDError."""
    source = open_source(path)
    return _measure_all(source, name, _open_all(name, source.count, scratch, device))


def _measure_all(source: Source, name: str, opened: list[Evaluation]) -> Report:
    """opened: the protocol called `name`, then those beside it."""
    figures: list[Figure] = []
    row: dict[str, Any] = {}
    for evaluation in opened:
        measured, gaussian = measure(evaluation, source)
        figures.append(_figure(evaluation, measured))
        if evaluation is opened[0]:
            row = measured.row()
            if gaussian is not None:
                figures.append(_torch_fidelity(evaluation, measured, gaussian))
    return Report(source.path.name, name, source.count, figures, row, notes=list(row.get("notes", [])))


def evaluate_experiment(
    name: str, wanted: str, label: str | None = None, count: int | None = None, keep: Path | None = None
) -> Report:
    """Draw an experiment's images as the protocol chooses classes, and measure them. Raises DDError before drawing.

    label: a sampler, as `dd-cli export-npz` takes it. count: images, default the protocol's. keep: where the npz stays.
    """
    root, chosen = config.project_root(), protocol(wanted)
    experiment = config.load_experiment(name)
    device, images = choose_device(experiment.device, name), count or chosen.images
    sampler = choose(name, experiment.evaluate.samplers, label)
    size = read_info(root / "data" / name / "teacher").image_size
    if chosen.image_size not in (None, size):
        raise DDError(
            f"{name}: protocol {wanted} measures images of {chosen.image_size} x {chosen.image_size}, its teacher "
            f"draws {size} x {size}: name the protocol of its data set ({experiment.evaluate.protocol})"
        )
    scratch = root / "work" / "evaluate"
    opened = _open_all(wanted, images, scratch, device)  # before the first image
    out = keep or scratch / f"{file_name(f'{name}-{sampler_label(sampler)}')}.npz"
    try:
        export(name, label, images, out, protocol=wanted)
        report = _measure_all(open_source(out), wanted, opened)
    finally:
        if keep is None:
            out.unlink(missing_ok=True)
    value = report.figures[0].value
    about = published(experiment, sampler, wanted, images, value)
    return Report(f"{name}, {sampler_label(sampler)}", wanted, images, report.figures, report.row, about, report.notes)


def measure(evaluation: Evaluation, source: Source) -> tuple[Measured, Gaussian | None]:
    """All metrics of a source's images and the Gaussian of their features; None where the network is missing."""
    name = evaluation.protocol.metric_name(source.count)
    extractor, reference = evaluation.extractor, evaluation.reference
    if extractor is None or reference is None:
        return Measured(name, source.count, missing={"value": str(evaluation.missing)}), None
    rgb, sums = RgbBatches(extractor.image_size), Sums(source.count, evaluation.protocol, extractor, reference)
    for images in source.batches():
        sums.take(Part(extractor(rgb(images)), None))
    return sums.finish(name, None, 0, rgb.notes), sums.moments.gaussian()


def published(
    experiment: config.Experiment, sampler: config.Sampler, wanted: str, images: int, value: float | None
) -> Published | None:
    """What the authors print for these weights under this protocol; None where nothing is known."""
    known = zoo.entries().get((experiment.student if sampler.name == "dd" else experiment.teacher.name) or "")
    facts = known.published if known else {}
    if facts.get("protocol") != wanted or sampler.name not in ("dd", "teacher"):
        return None
    if sampler.name == "teacher":
        found = facts.get("fid")
    else:
        steps = list(getattr(sampler, "steps", ()))
        found = next((row.get("fid") for row in facts.get("sampling", []) if list(row["steps"]) == steps), None)
    if found is None:
        return None
    if value is None or images != protocol(wanted).images:
        return Published(found, None, None)
    return Published(found, value - found, abs(value - found) <= TOLERANCE)


def _open_all(name: str, images: int, scratch: Path, device: str) -> list[Evaluation]:
    """The protocol, which must be there, then those of the other libraries; a data set's own has none beside it."""
    chosen, imagenet = protocol(name), [ADM, DD, CLEAN]
    beside = [one for one in imagenet if chosen in imagenet and one != chosen]
    must = open_evaluation(chosen, images, scratch, device=device)
    return [
        must,
        *(
            open_evaluation(one, images, scratch, device=device, allow_missing=(one.extractor, "reference"))
            for one in beside
        ),
    ]


BY = {
    "inception-tf": "OpenAI's network and resize (torch-fidelity), distance by clean-fid",
    "inception-pytorch": "pytorch-fid's network and resize, distance by clean-fid",
    "inception-clean": "clean-fid's network and resize",
    "classifier": "the data set's own classifier, distance by clean-fid",
}


def _figure(evaluation: Evaluation, measured: Measured) -> Figure:
    by = BY.get(evaluation.protocol.extractor, evaluation.protocol.extractor)
    if measured.value is None:
        return Figure(measured.metric, by, None, missing=measured.missing.get("value"))
    return Figure(measured.metric, by, measured.value.value, measured.value.error)


def _torch_fidelity(evaluation: Evaluation, measured: Measured, ours: Gaussian) -> Figure:
    """The same features and reference by torch-fidelity's own formula."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    assert evaluation.reference is not None
    pair = [{"mu": one.mean, "sigma": one.covariance} for one in (ours, evaluation.reference.gaussian)]
    value = float(fid_statistics_to_metric(*pair, verbose=False)[KEY_METRIC_FID])
    return Figure(measured.metric, "the same features, distance by torch-fidelity", value)
