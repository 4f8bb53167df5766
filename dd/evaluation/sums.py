"""What is summed over a stream of images, and the metrics that it gives at its end."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dd.errors import DDError
from dd.metrics import distances
from dd.metrics.features import Extractor, Features
from dd.metrics.moments import ClassSpread, Estimate, Gaussian, Moments
from dd.metrics.protocols import Protocol
from dd.metrics.references import Reference

log = logging.getLogger(__name__)
CLASS_LEAST = 2  # images of a class for each feature, below which its distance is left out
FEW = 1000  # images below which a kernel distance may say little


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
    class_distances: dict[int, float] = field(default_factory=dict)  # class to Frechet distance of its images alone
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
class Part:
    """Some consecutive images: their features, classes (B,) and, of scenes, which are as their caption says (B,)."""

    features: Features
    classes: Tensor | None
    right: Tensor | None = None


class Sums:
    """Everything that is summed over the stream."""

    def __init__(self, count: int, protocol: Protocol, extractor: Extractor, reference: Reference) -> None:
        self.count, self.protocol, self.extractor, self.reference = count, protocol, extractor, reference
        width = extractor.feature_width
        self.moments = Moments(width, count)
        self.score = distances.InceptionScore(count)
        self.spread: ClassSpread | None = None
        if reference.within_class_variance is not None and reference.classes:
            self.spread = ClassSpread(width, reference.classes, count)
        self.spatial: Moments | None = None
        self.kept: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.seen = self.hits = 0
        self.unlabelled = self.read = False

    def take(self, part: Part) -> None:
        """The next images' features, in the order of the images."""
        out, features = part.features, part.features.features.numpy()
        self.moments.add(features)
        if out.logits is not None:
            self.score.add(out.logits.numpy())
        if part.classes is None:
            self.unlabelled = True
        elif self.spread:
            self.spread.add(features, part.classes.numpy())
        self._add_spatial(out)
        if part.right is not None:
            self.read, self.hits = True, self.hits + int(part.right.sum())
        if self.seen < self.protocol.neighbours:
            room = self.protocol.neighbours - self.seen
            self.kept.append(out.features[:room])
            if part.classes is not None:
                self.labels.append(part.classes[:room])
        self.seen += len(features)

    def _add_spatial(self, out: Features) -> None:
        if out.spatial is None or self.reference.spatial is None:
            return
        self.spatial = self.spatial or Moments(out.spatial.shape[1], self.count, groups=1)
        self.spatial.add(out.spatial.numpy())

    def finish(self, name: str, partner: Measured | None, seed: int, notes: list[str]) -> Measured:
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
            caption_accuracy=_share(self.hits, self.seen) if self.read else None,
            class_distances=self._by_class(features, labels),
            missing=missing,
            notes=self._notes(notes, kid),
            features=features,
            labels=labels,
        )

    def _by_class(self, features: Tensor, labels: Tensor | None) -> dict[int, float]:
        """Frechet distance of each class's kept images to the reference's; empty where one has too few for it."""
        real, known = self.reference.features, self.reference.labels
        if labels is None or real is None or known is None:
            return {}
        least, found = CLASS_LEAST * self.extractor.feature_width, {}
        for label in labels.unique().tolist():
            mine, theirs = features[labels == label], real[known == label]
            if min(len(mine), len(theirs)) < least:
                return {}
            pair = [_gaussian(one) for one in (mine, theirs)]
            found[int(label)] = distances.frechet_by_eigenvalues(*pair)
        return found

    def _diversity(self, missing: dict[str, str]) -> Estimate | None:
        real = self.reference.within_class_variance
        mine = self.spread.estimate() if self.spread and not self.unlabelled else None
        if real is None or mine is None:
            missing["diversity"] = "needs two labelled images of a class, and a reference with labels"
            return None
        return Estimate(mine.value / real, None if mine.error is None else mine.error / real)

    def _notes(self, notes: list[str], kid: Estimate | None) -> tuple[str, ...]:
        notes = list(notes)
        if self.count < FEW and kid and kid.error is not None and kid.error > abs(kid.value) / 4:
            notes.append(f"KID of {self.count} images is known to {kid.error:.2g} only: compare no rows by it")
            log.warning(notes[-1])
        width = self.extractor.feature_width
        if self.count <= width:
            notes.append(
                f"{self.count} images for {width} features: the covariance is rank-deficient and the distance biased"
            )
            log.warning(notes[-1])
        return tuple(notes)


def _gaussian(features: Tensor) -> Gaussian:
    x = features.double().numpy()
    return Gaussian(len(x), x.mean(0), np.cov(x, rowvar=False))


def _share(hits: int, seen: int) -> Estimate:
    """A share with its standard error."""
    share = hits / seen
    return Estimate(share, math.sqrt(share * (1 - share) / seen))


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
