"""The paired bootstrap: it sees what is there, and no more than that."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dd.cli.main import app
from dd.cli.measure import compare as command
from dd.errors import DDError
from dd.evaluation.measure import Evaluation
from dd.evaluation.paired import bootstrap, compare
from dd.metrics.features import Extractor, Features
from dd.metrics.moments import Gaussian
from tests.helpers.tiny_models import tiny_model
from tests.helpers.toy_metrics import CLASSES, TOY, N, pictures

WIDTH = 4
REFERENCE = Gaussian(1000, np.zeros(WIDTH), np.eye(WIDTH))


def features(seed: int, shift: float = 0.0, count: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WIDTH)) + shift


def test_the_same_set_twice_has_no_difference():
    a, b, difference, error, low, high, p = bootstrap(features(0), features(0), REFERENCE, 100)
    assert (a, difference, error, low, high, p) == (b, 0, 0, 0, 0, 1)


def test_pairing_finds_a_difference_that_is_smaller_than_the_noise_of_one_set():
    """The second set is the first one a little off: each distance alone is uncertain by more than their difference."""
    one, other = features(0, 0.5), features(0, 0.5) * 1.03 + 0.02
    _, _, difference, error, low, high, p = bootstrap(one, other, REFERENCE, 200)
    unpaired = bootstrap(one, features(7, 0.5) * 1.03 + 0.02, REFERENCE, 200)[3]
    assert low < difference < high
    assert low > 0
    assert p < 0.02
    assert error < unpaired / 3


def test_two_draws_of_one_model_seldom_differ():
    """Under no difference p is below 0.05 in about one of twenty."""
    found = [bootstrap(features(2 * i, 0.3), features(2 * i + 1, 0.3), REFERENCE, 100)[-1] for i in range(60)]
    assert sum(p < 0.05 for p in found) <= 9
    assert sum(p < 0.5 for p in found) >= 18


def test_the_error_is_that_of_repeated_draws():
    errors = [bootstrap(features(i, 0.3), features(i + 500, 0.6), REFERENCE, 100)[3] for i in range(5)]
    drawn = [bootstrap(features(i, 0.3), features(i + 500, 0.6), REFERENCE, 2)[2] for i in range(100, 160)]
    assert np.mean(errors) == pytest.approx(np.std(drawn), rel=0.35)


def test_images_of_two_sets(evaluation: Evaluation):
    images, labels = pictures(N, seed=3)
    same = compare(evaluation, images, images, labels, 100)
    assert (same.difference, same.p_value, same.alike, same.significant) == (0, 1, 0, False)
    darker = (images.float() * 0.6).to(torch.uint8)
    found = compare(evaluation, images, darker, labels, 100)
    assert found.significant
    assert found.difference > 3 * found.error > 0
    assert found.metric == f"FD-toy, N={N}"
    assert len(set(labels.tolist())) == CLASSES
    with pytest.raises(DDError, match=r"expected two sets of alike images, got \(240, 3, 8, 8\) and \(10, 3, 8, 8\)"):
        compare(evaluation, images, images[:10], labels, 100)
    with pytest.raises(DDError, match="compare: no weights"):
        compare(replace(evaluation, extractor=None, missing="no weights"), images, images, labels, 100)


class Quarters(Extractor):
    """Mean brightness of four parts of an image of any size."""

    name, preprocessing, weights_sha256, feature_width, device = "quarters", "", "", WIDTH, torch.device("cpu")

    def extract(self, images: torch.Tensor) -> Features:
        return Features(torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1), 2).flatten(1) / 50)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    models = {"one": tiny_model("llamagen"), "other": tiny_model("llamagen"), "var": tiny_model("var")}
    opened = Evaluation(TOY, 100, Quarters(), SimpleNamespace(gaussian=REFERENCE))
    monkeypatch.setattr("dd.api.load", models.__getitem__)
    monkeypatch.setattr("dd.evaluation.measure.open_evaluation", lambda *a, **k: opened)
    arguments = ["compare", "one", "other", "--protocol", "fd-toy", "-n", "100", "--resamples", "100"]
    done = CliRunner().invoke(app, arguments)
    more = CliRunner().invoke(app, [*arguments, "--steps-b", "2", "--json"])
    assert (done.exit_code, more.exit_code) == (0, 0), (done.exception, more.exception)
    found = json.loads(more.stdout)
    assert done.stdout.splitlines()[-1] == "no more than noise"  # the same student twice
    assert found["names"] == ["one, 1 step", "other, 2 steps"]
    assert found["images"] == 100
    with pytest.raises(DDError, match=r"expected noise of one shape \(tokens, code width\), got"):
        command._check(models["one"], models["var"])
    with pytest.raises(DDError, match="expected models of the same classes, got 3 and 1"):
        command._check(models["one"], replace(models["one"], classes=("a",)))
    text = replace(models["one"], text_encoder="x")
    with pytest.raises(DDError, match="one of toy and toy draws from prompts, the other from classes"):
        command._check(text, models["one"])
    with pytest.raises(DDError, match="toy draws from prompts: say --captions FILE"):
        command._prompts(text, None, 2)
    with pytest.raises(DDError, match="toy draws from classes: leave --captions out"):
        command._prompts(models["one"], tmp_path / "c.txt", 2)
    (tmp_path / "c.txt").write_text("a hat\na shoe\na bag\n")
    assert command._prompts(text, tmp_path / "c.txt", 2) == ["a hat", "a shoe"]
