"""dd-cli bench evaluation."""

import pytest

from dd.bench.evaluation import measure
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.references import Reference


def test_bench_measures_both_paths(extractor: ClassifierExtractor, reference: Reference, monkeypatch):
    monkeypatch.setattr("dd.evaluation.measure.open_extractor", lambda *args: extractor)
    monkeypatch.setattr("dd.metrics.protocols.Protocol.reference_path", lambda *args: reference.path)
    ours, theirs = measure(40, "fd-toy", 16, 2, 0)
    assert ours["distance"] == pytest.approx(theirs["distance"], rel=1e-3)
    assert min(ours["seconds"], theirs["seconds"]) > 0
