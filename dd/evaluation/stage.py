"""An experiment's evaluation: every sampler a row, a grid of samples from the same noise, plots.

Published as a whole.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from dd import __version__, config
from dd.checkpoints.students import StudentInfo, read_student_info
from dd.checkpoints.teachers import RANDOM_BLOCKS
from dd.errors import DDError
from dd.evaluation.figures import (
    Tiles,
    curves_figure,
    quality_figure,
    read_curves,
    sample_grid,
    save_figure,
    write_tiles,
)
from dd.evaluation.finished import FinishedRow
from dd.evaluation.measure import Batch, Evaluation, Measured, check_folder, open_evaluation
from dd.evaluation.rows import Row, fill_ratios, make_row, numbers
from dd.evaluation.scene_reader import SceneReader, open_reader
from dd.evaluation.share import open_share
from dd.metrics.images import load_npz, to_uint8
from dd.metrics.protocols import protocol
from dd.models.base import Teacher
from dd.models.precision import uses_bf16
from dd.sampling.experiment import open_image_sampler
from dd.sampling.image_sampler import sampler_label
from dd.system.device import choose_device
from dd.system.files import publish, write_text
from dd.system.git import revision
from dd.system.machine import describe
from dd.system.names import file_name
from dd.system.progress import Progress, progress

log = logging.getLogger(__name__)
GRID_COLUMNS = 10


@dataclass(frozen=True)
class Floor:
    """Training images: the rows `real` and `reconstruction`. missing: why there are none.

    attributes: (N, heads) of scenes, what a reader should find in them.
    """

    images: Tensor | None
    labels: Tensor | None
    missing: str | None = None
    attributes: Tensor | None = None


def load_floor(root: Path, name: str, count: int) -> Floor:
    """`count` training images of the protocol's data set, from zoo/<dataset>/images.npz."""
    path = root / "zoo" / name.removeprefix("fd-") / "images.npz"
    if not name.startswith("fd-") or not path.is_file():
        return Floor(None, None, f"needs {count} training images: place them as {path.relative_to(root)}")
    arrays = load_npz(path)
    images = torch.from_numpy(arrays["images"][:count])
    if len(images) < count:
        return Floor(None, None, f"needs {count} training images, {path.relative_to(root)} holds {len(images)}")
    images = images[:, None].expand(-1, 3, -1, -1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    labels = torch.from_numpy(arrays["labels"][:count].astype(np.int64))
    facts = torch.from_numpy(arrays["attributes"][:count].astype(np.int64)) if "attributes" in arrays else None
    return Floor(images, labels, attributes=facts)


def floor_batches(
    floor: Floor, teacher: Teacher, reconstruct: bool, size: int, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """The training images, or what the tokenizer makes of them. rank, world: every world-th batch."""
    assert floor.images is not None
    assert floor.labels is not None
    device = teacher.codebook.device
    pairs = zip(floor.images.split(size), floor.labels.split(size), strict=True)
    for images, labels in islice(pairs, rank, None, world):
        if not reconstruct:
            yield images, labels
            continue
        with torch.inference_mode():
            tokens = teacher.tokenizer.encode(images.to(device).float() / 127.5 - 1)
            yield teacher.decode(teacher.codebook[tokens]), labels


class Stage:
    """One experiment's evaluation, opened: configuration, networks, reference."""

    def __init__(self, name: str, root: Path, keep_images: Path | None = None) -> None:
        self.name, self.root, self.keep = name, root, keep_images
        # Of the code that runs, whatever is committed meanwhile. An experiment's settings may lie in params.yaml alone
        # (`dd-cli experiment add`): they are in the presets, and DVC records them.
        self.revision = revision(root, "dd", "stages", "zoo", "dvc.yaml")
        self.experiment = config.load_experiment(name)
        self.settings = self.experiment.evaluate
        self.protocol = protocol(self.settings.protocol)
        self._check_seed()
        self._check_selection()
        device = choose_device(self.experiment.device, name)
        self.share = open_share(self.settings.batch, cpu=device == "cpu")
        if self.share.world > 1 and device == "cuda":
            device = f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"
        self.evaluation: Evaluation = open_evaluation(
            self.protocol,
            self.settings.images,
            keep_images or root / "work",
            reference=self.settings.reference,
            keep_images=keep_images is not None,
            device=device,
            allow_missing=self.settings.allow_missing,
        )
        self.image_sampler, self.teacher_info = open_image_sampler(name, root, device)
        self.teacher = self.image_sampler.teacher
        self._check_images()
        models = root / "models" / name
        self.student_info: StudentInfo | None = (
            read_student_info(models) if self.image_sampler.student is not None else None
        )
        self.floor = load_floor(root, self.settings.protocol, self.settings.images)
        self.reader: SceneReader | None = None
        self.unread: str | None = None  # why a text experiment has no caption accuracy
        if self.experiment.condition == "text":
            self.reader, self.unread = open_reader(root, name, self.settings.protocol, device)
        self.folder = root / "work" / self._fingerprint()
        self.bar: Progress[None] | None = None  # of `rows`

    def _fingerprint(self) -> str:
        """What finished rows belong to: code, parameters, networks, metric and reference."""
        code = [file for file in (self.root / "data" / self.name / "code" / "evaluate.json",) if file.is_file()]
        student = self.student_info.sha256 if self.student_info else None
        measure = (self._extractor_sha256(), self._reference_sha256())
        chosen = (self.experiment.teacher, self.settings, self.teacher_info.sha256, student, measure)
        return config.fingerprint("evaluate", __version__, self.name, self.revision, *chosen, *code)

    def _extractor_sha256(self) -> str | None:
        return self.evaluation.extractor.weights_sha256 if self.evaluation.extractor else None

    def _reference_sha256(self) -> str | None:
        return self.evaluation.reference.sha256 if self.evaluation.reference else None

    def _check_seed(self) -> None:
        trajectories = self.experiment.trajectories
        if trajectories is not None and trajectories.seed == self.settings.seed:
            raise DDError(
                f"{self.name}: expected evaluate.seed to differ from trajectories.seed, both are {self.settings.seed}: "
                "the student would be measured on noise that it was trained on"
            )

    def _check_selection(self) -> None:
        """No knob was chosen on the very reference that is measured against."""
        for sampler in self.settings.samplers:
            if getattr(sampler, "selected_on", None) == self.protocol.name:
                raise DDError(
                    f"{self.name}, {sampler_label(sampler)}: selected_on must not be {self.protocol.name}, which the "
                    f"row is measured against: choose on another reference with `dd-cli select {self.name}`"
                )

    def _check_images(self) -> None:
        """What the teacher draws is what the protocol measures: size, and classes that the reference has."""
        info, opened = self.teacher_info, self.evaluation
        # The size is that of the protocol's reference; Inception takes any, and so does a reference of one's own.
        fixed = None if self.settings.reference else self.protocol.image_size
        wanted = fixed or (opened.extractor.image_size if opened.extractor else None)
        if wanted and info.image_size != wanted:
            raise DDError(
                f"{self.name}: protocol {self.protocol.name} measures images of {wanted} x {wanted}, teacher "
                f"{info.name} draws {info.image_size} x {info.image_size}: name the protocol of its data set"
            )
        known = opened.reference.classes if opened.reference else 0
        if known and len(info.classes) > known:
            raise DDError(
                f"{self.name}: the reference of protocol {self.protocol.name} has {known} classes, teacher {info.name} "
                f"{len(info.classes)}: name the protocol of its data set"
            )

    def rows(self) -> list[FinishedRow]:
        """Measure everything; the teacher first, whose images the others are paired with.

        Rows that an earlier, killed run finished are taken from its files. Empty in processes beside the main one.
        """
        order = sorted(enumerate(self.settings.samplers), key=lambda one: one[1].name != "teacher")
        files = {number: self.folder / f"row-{number:02d}.safetensors" for number, _ in order}
        there = {number: FinishedRow.load(file) for number, file in files.items()}
        self.share.wait()  # everyone has looked before anyone writes
        if done := sum(row is not None for row in there.values()):
            log.info("evaluate %s: continuing with %d of %d rows finished", self.name, done, len(order))
        partner: Measured | None = None
        images = self.settings.images
        total, label = len(order) * images, f"evaluate {self.name}"
        self.bar = progress(total, unit="images", label=label, done=done * images)
        with self.bar:
            for number, sampler in order:
                if (finished := there[number]) is None:
                    before = self.bar.step
                    finished = there[number] = self._finish(sampler, partner, files[number])
                    self.bar.update(images - (self.bar.step - before))
                if sampler.name == "teacher":
                    partner = (finished.partner() if finished else None) or partner
        if self.share.rank:
            return []
        rows = [there[number] for number in range(len(order))]
        return [row for row in rows if row is not None]

    def _finish(self, sampler: config.Sampler, partner: Measured | None, file: Path) -> FinishedRow | None:
        """Measure a row and leave it in a file; None in processes beside the main one."""
        found = self._measure(sampler, partner)
        finished = None
        if not self.share.rank:
            kept = (found.features, found.labels) if sampler.name == "teacher" else (None, None)
            finished = FinishedRow(self._row(sampler, found), self._grid_line(sampler), *kept)
            finished.save(file)
        self.share.wait()
        return finished

    def _measure(self, sampler: config.Sampler, partner: Measured | None) -> Measured:
        if (reason := self._reason(sampler)) is not None:
            log.warning("%s is not measured: %s", sampler_label(sampler), reason)
            metric = self.protocol.metric_name(self.settings.images)
            return Measured(metric, self.settings.images, missing=dict.fromkeys(Measured.METRICS, reason))
        folder = self.keep / file_name(sampler_label(sampler)) if self.keep else None
        pair = None if self._is_floor(sampler) or sampler.name == "teacher" else partner
        read = self.reader and self.reader.reading(self.floor.attributes if self._is_floor(sampler) else None)
        batches = self._counted(self._batches(sampler))
        found = self.evaluation.measure(batches, pair, folder, self.settings.seed, read or None, self.share)
        if self.unread is None:
            return found
        return replace(found, missing={**found.missing, "caption_accuracy": self.unread})

    def _counted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches of this process, each of which stands for one of every process in the progress shown."""
        left = self.settings.images
        for images, classes in batches:
            yield images, classes
            counted = min(left, len(images) * self.share.world)
            left -= counted
            if self.bar is not None:
                self.bar.update(counted)

    def _reason(self, sampler: config.Sampler) -> str | None:
        """Why a sampler cannot be measured, or None."""
        return self.floor.missing if self._is_floor(sampler) else self.image_sampler.missing(sampler)

    def _batches(self, sampler: config.Sampler) -> Iterator[Batch]:
        size, rank, world = self.settings.batch, self.share.rank, self.share.world
        if self._is_floor(sampler):
            return floor_batches(self.floor, self.teacher, sampler.name == "reconstruction", size, rank, world)
        return self.image_sampler.batches(sampler, self.settings.images, size, rank, world)

    @cached_property
    def tiles(self) -> Tiles:
        """The images that the grids show: some of each class, or of the first captions."""
        if self.experiment.condition == "text":
            from dd.text.captions import caption_file, iterate_captions

            captions = iterate_captions(caption_file(self.root / "data" / self.name / "teacher", "test"))
            return Tiles.of(None, list(islice(captions, min(GRID_COLUMNS, self.settings.images))))
        labels = self.image_sampler.conditions.labels(torch.arange(self.settings.images))
        return Tiles.of(labels, self.teacher_info.classes, GRID_COLUMNS)

    def _grid_line(self, sampler: config.Sampler) -> Tensor | None:
        """(tiles, 3, H, W) uint8: the sampler's images of the grids; None for what draws none."""
        if self._is_floor(sampler) or self._reason(sampler) is not None:
            return None
        return to_uint8(self.image_sampler.images(sampler, self.tiles.indices)).cpu()

    def _row(self, sampler: config.Sampler, found: Measured) -> Row:
        drawn = not self._is_floor(sampler) and self.image_sampler.missing(sampler) is None
        drawn = drawn and RANDOM_BLOCKS not in self.teacher_info.origin  # a rehearsal: its seconds mean nothing
        with_student = isinstance(sampler, config.StudentSampler | config.TeacherInvolvedSampler)
        released = self.student_info is not None and "released" in self.student_info.provenance
        values: dict[str, Any] = {
            "block": "released" if with_student and released else "measured",
            "experiment": self.name,
            "family": self.experiment.family,
            "teacher": self.teacher_info.name,
            "sampler": sampler.name,
            "label": sampler_label(sampler),
            "evaluations": self.image_sampler.evaluations(sampler),
            "tokens": self.teacher.groups.length,
            "codes": len(self.teacher.codebook),
            "passes": self.image_sampler.passes(sampler),
            **(self._times(sampler) if drawn else {}),
            "parameters": self.image_sampler.parameters(sampler),
            "protocol": self.protocol.name,
            "seed": self.settings.seed,
            "selected_on": selected_on(sampler),
            "revision": self.revision,
            "extractor_sha256": self._extractor_sha256(),
            "reference_sha256": self._reference_sha256(),
            "teacher_sha256": self.teacher_info.sha256,
            "student_sha256": self.student_info.sha256 if with_student and self.student_info else None,
            "command": f"python -m stages.evaluate {self.name}",
        }
        if found.class_distances and (names := self.teacher_info.classes):  # captions have none
            values["class_distances"] = {names[label]: value for label, value in found.class_distances.items()}
        return make_row(**values | found.row())

    def _times(self, sampler: config.Sampler) -> dict[str, Any]:
        """Latency and throughput of a sampler, on what, and how."""
        return {
            "latency_seconds": self.image_sampler.latency_seconds(sampler),
            "seconds_per_image": self.image_sampler.seconds_per_image(sampler, self.settings.batch),
            "cpu": describe(self.teacher.codebook.device.type),
            "timing": self.timing(),
        }

    def timing(self) -> str:
        """What seconds_per_image was taken with: batch, dtype, device, threads."""
        device = self.teacher.codebook.device.type
        where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        dtype = "bfloat16" if uses_bf16(self.settings.precision, device) else "float32"
        return f"batch {self.settings.batch}, {dtype}, {where}"

    @staticmethod
    def _is_floor(sampler: config.Sampler) -> bool:
        return isinstance(sampler, config.RealSampler | config.ReconstructionSampler)


def selected_on(sampler: config.Sampler) -> str | None:
    """What a row's knobs were chosen on: a reference, `by hand`, or None for a row that has none or leaves them."""
    if not isinstance(sampler, config.TeacherSampler | config.StudentSampler | config.TeacherInvolvedSampler):
        return None
    own = (getattr(sampler, knob, None) for knob in ("guidance", "temperature"))
    by_hand = sampler.noise_scale != 1 or any(value is not None for value in own)
    return sampler.selected_on or ("by hand" if by_hand else None)


def main(name: str, keep_images: Path | None = None) -> str:
    """Evaluate an experiment and publish results/<name>/ as a whole. Returns what was done, in one line.

    Rows that are finished survive a kill, in work/<fingerprint>/. Several processes (accelerate) share the images.
    """
    root = config.project_root()
    results = root / "results"
    check_folder(results if results.is_dir() else root)
    stage = Stage(name, root, keep_images)
    if stage.share.rank:
        stage.rows()
        return ""
    stage.folder.mkdir(parents=True, exist_ok=True)
    (stage.folder / f"{name}.owner").touch()
    lock = FileLock(stage.folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DDError(
            f"another process evaluates this (it holds {stage.folder / 'lock'}): wait until it ends"
        ) from None
    try:
        finished = stage.rows()
        scratch = stage.folder / "out"
        shutil.rmtree(scratch, ignore_errors=True)
        rows = fill_ratios([one.row for one in finished])
        write_results(
            rows, {one.row["label"]: one.grid for one in finished if one.grid is not None}, stage.tiles, scratch
        )
        if curves := read_curves(root / "models" / name):
            save_figure(curves_figure(curves), scratch / "curves")
        publish(scratch, results / name)
    finally:
        lock.release()
    shutil.rmtree(stage.folder, ignore_errors=True)
    return f"wrote results/{name}: {len(rows)} rows, {stage.settings.images} images each"


def write_results(rows: list[Row], grid: dict[str, Tensor], tiles: Tiles, folder: Path) -> None:
    """rows.json, metrics.json, the grid of samples (as a picture, and as tiles for the page) and the quality plot."""
    write_text(folder / "rows.json", json.dumps({"rows": rows}, indent=1) + "\n")
    write_text(folder / "metrics.json", json.dumps(numbers(rows), indent=1) + "\n")
    if grid:
        first = {label: images[:: tiles.each] for label, images in grid.items()}
        save_figure(sample_grid(first, tiles.names), folder / "samples", ("png",))
        write_tiles(grid, tiles, folder)
    save_figure(quality_figure(rows), folder / "quality")
