"""Fixtures of a toy evaluation."""

from pathlib import Path

import pytest

from dd.metrics import distances
from tests.helpers.small.evaluation import make_evaluation
from tests.helpers.toy_metrics import evaluation, extractor, few_subsets, folder, reference

__all__ = ["evaluation", "extractor", "few_subsets", "folder", "reference"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder whose experiment can be evaluated."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setattr(distances, "KID_SUBSETS", 2)
    return make_evaluation(tmp_path)
