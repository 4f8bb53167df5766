"""From a stream of images to a row of metrics.

evaluation = open_evaluation(protocol("fd-fashion"), images=10_000, out=Path("results/mine"))   # fails first
measured = evaluation.measure(batches)          # draws, extracts and sums at the same time
measured.row()                                  # {"metric": "FD-fashion", "value": 6.2, "value_error": .05, ...}
"""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Callable, Container, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dd.errors import DDError
from dd.metrics import distances
from dd.metrics.extractors import open_extractor
from dd.metrics.features import Extractor, Features, MissingWeights
from dd.metrics.images import RgbBatches, write_pngs
from dd.metrics.moments import ClassSpread, Estimate, Moments
from dd.metrics.protocols import Protocol
from dd.metrics.references import Reference, load_reference
from dd.sampling.image_sampler import Batch
from dd.system.machine import one_thread

log = logging.getLogger(__name__)
IN_FLIGHT = 2  # batches that may wait for the extractor


@dataclass(frozen=True)
class Measured:
    """Metrics of one set of images. `missing` says of a metric that could not be measured why, and how to get it."""

    metric: str
    images: int
    value: Estimate | None = None
    kid: Estimate | None = None
    inception_score: Estimate | None = None
    precision: Estimate | None = None
    recall: Estimate | None = None
    diversity: Estimate | None = None
    paired_distance: Estimate | None = None
    sfid: Estimate | None = None
    caption_accuracy: Estimate | None = None  # of text to image (dd.evaluation.scene_reader)
    missing: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    features: Tensor | None = None  # (M, F): the first ones, for the paired distance of other samplers
    labels: Tensor | None = None

    METRICS = ("value", "kid", "inception_score", "precision", "recall", "diversity", "paired_distance")

    def row(self) -> dict[str, Any]:
        """Flat: each metric and its standard error (`<metric>_error`); null where not measured."""
        found: dict[str, Any] = {"metric": self.metric, "images": self.images}
        names = (*self.METRICS, *(name for name in ("sfid", "caption_accuracy") if getattr(self, name)))
        for name in names:
            estimate: Estimate | None = getattr(self, name)
            found[name] = estimate.value if estimate else None
            found[f"{name}_error"] = estimate.error if estimate else None
        return found | {"missing": self.missing, "notes": list(self.notes)}


@dataclass(frozen=True)
class Evaluation:
    """An opened protocol. missing: why the extractor is not there (then `measure` measures nothing)."""

    protocol: Protocol
    images: int
    extractor: Extractor | None
    reference: Reference | None
    missing: str | None = None

    def measure(
        self, batches: Iterable[Batch], partner: Measured | None = None, pngs: Path | None = None, seed: int = 0
    ) -> Measured:
        """Metrics of exactly `self.images` images.

        batches: (images, classes); classes must come mixed, not sorted. partner: the teacher's images of the same
        noise and classes, for the paired distance. pngs: a folder that keeps the images. seed: of the KID's subsets.
        """
        name = self.protocol.metric_name(self.images)
        if self.extractor is None or self.reference is None:
            return Measured(name, self.images, missing={key: str(self.missing) for key in Measured.METRICS})
        sums = _Sums(self, pngs)
        with _Beside(self.extractor.device) as beside:
            promised = 0
            for images, classes in batches:
                beside.do(sums.add, images, classes)
                promised += len(images)
                if promised >= self.images:
                    break
        return sums.finish(name, partner, seed)


def open_evaluation(
    protocol: Protocol,
    images: int,
    out: Path,
    *,
    extractor: Extractor | str | Path | None = None,
    reference: str | Path | None = None,
    keep_images: bool = False,
    device: str | torch.device = "cpu",
    allow_missing: Container[str] = (),
) -> Evaluation:
    """Open everything that an evaluation needs, before the first image is drawn.

    Raises DDError for a bad reference, too few images, too little disk space or an unwritable folder, and for a metric
    network or a reference that is not on this machine, unless `allow_missing` names it (the protocol's extractor;
    "reference"): then the metrics they would give are reported as missing.
    """
    if images < 2:
        raise DDError(f"expected at least 2 images, got {images}: a distance needs a sample")
    side = protocol.image_size or 32
    check_folder(out, images * side * side * 3 if keep_images else 0)
    try:
        if not isinstance(extractor, Extractor):
            extractor = open_extractor(protocol.extractor, protocol.extractor_path(extractor), device)
    except MissingWeights as error:
        return _without(protocol, images, protocol.extractor, error, allow_missing)
    path = protocol.reference_path(reference)
    if not path.is_file() and "reference" in allow_missing:
        reason = DDError(f"no reference for protocol {protocol.name} at {path}: {protocol.how_to_get}")
        return _without(protocol, images, "reference", reason, allow_missing)
    return Evaluation(protocol, images, extractor, load_reference(path, protocol, extractor))


def _without(protocol: Protocol, images: int, name: str, why: DDError, allowed: Container[str]) -> Evaluation:
    """An evaluation that measures nothing, where that was allowed by name. Raises DDError otherwise."""
    if name not in allowed:
        raise DDError(
            f"{protocol.metric_name(images)} cannot be measured: {why}; to go on without it: "
            f"evaluate.allow_missing: [{name}]"
        )
    log.warning("%s cannot be measured: %s", protocol.metric_name(images), why)
    return Evaluation(protocol, images, None, None, str(why))


def check_folder(out: Path, needed: int = 0) -> None:
    """Raise DDError unless the folder can be written and has room for `needed` bytes, and a little more."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise DDError(f"cannot write to {out} ({error.strerror}): make it writable or choose another folder") from error
    needed += 16 << 20
    if free < needed:
        raise DDError(
            f"expected {needed >> 20} MiB of free space for {out}, got {free >> 20} MiB: free some, or keep no images"
        )


class _Beside:
    """Calls that run beside the caller's own work, in order, at most IN_FLIGHT late; their errors come out later.

    With an accelerator that is a thread, which scales pictures while the device draws the next ones. On a CPU the call
    runs at once: two kinds of work at a time get in each other's way there (94 s against 114 s on two cores).
    """

    def __init__(self, device: torch.device) -> None:
        self.pool = None if device.type == "cpu" else ThreadPoolExecutor(1, "extractor", initializer=one_thread)
        self.waiting: deque[Future[None]] = deque()

    def __enter__(self) -> _Beside:
        return self

    def do(self, work: Callable[..., None], *arguments: Any) -> None:
        if self.pool is None:
            work(*arguments)
            return
        self.waiting.append(self.pool.submit(work, *arguments))
        while len(self.waiting) > IN_FLIGHT or (self.waiting and self.waiting[0].done()):
            self.waiting.popleft().result()

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if self.pool is None:
            return
        self.pool.shutdown(cancel_futures=failed is not None)
        if failed is None:
            for future in self.waiting:
                future.result()


class _Sums:
    """Everything that is summed over the stream."""

    def __init__(self, evaluation: Evaluation, pngs: Path | None) -> None:
        assert evaluation.extractor
        assert evaluation.reference
        self.count, self.protocol = evaluation.images, evaluation.protocol
        self.extractor, self.reference, self.pngs = evaluation.extractor, evaluation.reference, pngs
        width = self.extractor.feature_width
        self.rgb = RgbBatches(self.extractor.image_size)
        self.moments = Moments(width, self.count)
        self.score = distances.InceptionScore(self.count)
        self.spread: ClassSpread | None = None
        if self.reference.within_class_variance is not None and self.reference.classes:
            self.spread = ClassSpread(width, self.reference.classes, self.count)
        self.spatial: Moments | None = None
        self.kept: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.seen = 0
        self.unlabelled = False

    def add(self, images: Tensor, classes: Tensor | None) -> None:
        images = self.rgb(images[: self.count - self.seen])
        if not len(images):
            return
        out = self.extractor(images)
        features = out.features.numpy()
        self.moments.add(features)
        if out.logits is not None:
            self.score.add(out.logits.numpy())
        if classes is None:
            self.unlabelled = True
        else:
            classes = classes[: len(images)].cpu()
            if self.spread:
                self.spread.add(features, classes.numpy())
        self._add_spatial(out)
        if self.seen < self.protocol.neighbours:
            room = self.protocol.neighbours - self.seen
            self.kept.append(out.features[:room])
            if classes is not None:
                self.labels.append(classes[:room])
        if self.pngs:
            write_pngs(self.pngs, images.cpu(), self.seen)
        self.seen += len(images)

    def _add_spatial(self, out: Features) -> None:
        if out.spatial is None or self.reference.spatial is None:
            return
        self.spatial = self.spatial or Moments(out.spatial.shape[1], self.count, groups=1)
        self.spatial.add(out.spatial.numpy())

    def finish(self, name: str, partner: Measured | None, seed: int) -> Measured:
        """All metrics. Raises DDError when fewer images came than were promised."""
        if self.seen < self.count:
            raise DDError(f"expected {self.count} images, the sampler gave {self.seen}: the metrics were not computed")
        missing: dict[str, str] = {}
        features = torch.cat(self.kept)
        labels = torch.cat(self.labels) if self.labels and not self.unlabelled else None
        kid = precision = recall = None
        if self.reference.features is None:
            reason = f"{self.reference.path.name} holds no features of real images, only moments"
            missing |= dict.fromkeys(("kid", "precision", "recall"), reason)
        else:
            real = self.reference.features[: self.protocol.neighbours]
            kid = distances.kernel(features.numpy(), real.numpy(), seed)
            if min(len(features), len(real)) > distances.NEIGHBOURS:
                precision, recall = distances.precision_recall(features, real)
            else:
                missing |= dict.fromkeys(("precision", "recall"), f"needs more than {distances.NEIGHBOURS} images")
        score = self.score.estimate()
        if score is None:
            missing["inception_score"] = f"extractor {self.extractor.name} gives no logits"
        sfid = None
        if self.spatial and self.reference.spatial:
            sfid = Estimate(distances.frechet(self.spatial.gaussian(), self.reference.spatial))
        return Measured(
            metric=name,
            images=self.count,
            value=distances.frechet_estimate(self.moments, self.reference.gaussian),
            kid=kid,
            inception_score=score,
            precision=precision,
            recall=recall,
            diversity=self._diversity(missing),
            paired_distance=_paired(features, labels, partner, seed),
            sfid=sfid,
            missing=missing,
            notes=self._notes(),
            features=features,
            labels=labels,
        )

    def _diversity(self, missing: dict[str, str]) -> Estimate | None:
        real = self.reference.within_class_variance
        mine = self.spread.estimate() if self.spread and not self.unlabelled else None
        if real is None or mine is None:
            missing["diversity"] = "needs two labelled images of a class, and a reference with labels"
            return None
        return Estimate(mine.value / real, None if mine.error is None else mine.error / real)

    def _notes(self) -> tuple[str, ...]:
        notes = list(self.rgb.notes)
        width = self.extractor.feature_width
        if self.count <= width:
            notes.append(
                f"{self.count} images for {width} features: the covariance is rank-deficient and the distance biased"
            )
            log.warning(notes[-1])
        return tuple(notes)


def _paired(features: Tensor, labels: Tensor | None, partner: Measured | None, seed: int) -> Estimate | None:
    if partner is None or partner.features is None:
        return None
    rows = min(len(features), len(partner.features))
    if labels is not None and partner.labels is not None and not torch.equal(labels[:rows], partner.labels[:rows]):
        raise DDError(
            "expected the teacher's images to be of the same classes in the same order: draw both with one seed"
        )
    some = None if labels is None else labels[:rows]
    return distances.paired_distance(features[:rows], partner.features[:rows], some, seed)
