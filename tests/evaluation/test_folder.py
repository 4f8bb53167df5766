"""clean-fid's own path over a folder."""

from pathlib import Path

import pytest

from dd.evaluation.folder import clean_fid_of_folder
from dd.evaluation.measure import Evaluation
from dd.metrics.images import write_pngs
from tests.helpers.toy_metrics import N, batches, pictures


def test_clean_fids_folder_path_gives_the_same_distance(evaluation: Evaluation, tmp_path: Path):
    images, labels = pictures(N, seed=3)
    write_pngs(tmp_path / "png", images)
    theirs = clean_fid_of_folder(tmp_path / "png", evaluation.extractor, evaluation.reference, batch=60)
    assert evaluation.measure(batches(images, labels)).value.value == pytest.approx(theirs, rel=1e-3)
