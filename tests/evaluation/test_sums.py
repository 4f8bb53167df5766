"""Metrics of a stream of images, and the row that they make."""

import pytest
import torch

from dd.errors import DDError
from dd.evaluation.sums import Measured, Part, Sums
from dd.metrics.features import Features
from dd.metrics.moments import Estimate
from dd.metrics.protocols import protocol
from tests.helpers.toy_metrics import CLASSES, N, batches, pictures


def test_a_row_has_every_metric_and_its_error():
    row = Measured("FD", 10, value=Estimate(1.5, 0.1), missing={"kid": "no features"}, notes=("few",)).row()
    assert (row["value"], row["value_error"]) == (1.5, 0.1)
    assert (row["kid"], row["kid_error"]) == (None, None)  # null, never 0
    assert (row["metric"], row["images"], row["missing"], row["notes"]) == ("FD", 10, {"kid": "no features"}, ["few"])
    assert "sfid" not in row
    assert Measured("FD", 10, caption_accuracy=Estimate(0.5)).row()["caption_accuracy"] == 0.5


def test_too_few_images_are_refused(extractor, reference):
    sums = Sums(N, protocol("fd-toy"), extractor, reference)
    images, labels = next(iter(batches(*pictures(30), 30)))
    sums.take(Part(extractor(images), labels))
    with pytest.raises(DDError, match=rf"expected {N} images, the sampler gave 30: the metrics were not computed"):
        sums.finish("FD", None, 0, [])


def test_images_without_classes_have_no_diversity(extractor, reference):
    sums = Sums(4, protocol("fd-toy"), extractor, reference)
    features = torch.randn(4, extractor.feature_width, generator=torch.Generator().manual_seed(0))
    sums.take(Part(Features(features, None), None))
    assert sums.unlabelled
    assert sums.seen == 4


def test_distances_by_class_see_the_class_that_is_off(extractor, reference, few_subsets):
    def by_class(images, labels):
        sums = Sums(len(images), protocol("fd-toy"), extractor, reference)
        sums.take(Part(extractor(images), labels))
        return sums.finish("FD", None, 0, []).class_distances

    images, labels = pictures(N, seed=7)
    plain = by_class(images, labels)
    assert set(plain) == set(range(CLASSES))
    dark = torch.where((labels == 2)[:, None, None, None], images // 3, images)
    off = by_class(dark, labels)
    assert off[2] > 3 * plain[2] > 0
    assert all(off[label] == plain[label] for label in (0, 1, 3))
    assert by_class(images[:20], labels[:20]) == {}  # five of a class for six features or so: no distance
