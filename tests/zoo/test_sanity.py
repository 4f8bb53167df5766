"""What is worthless is an error, what is doubtful a warning, what is fine says nothing."""

import math

import numpy as np
import pytest

from dd.errors import DDError
from zoo import sanity
from zoo.settings import Training


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (lambda: sanity.steps(0, 44, 64, "teacher"), "teacher: 0 steps of 64 from 44 images train nothing"),
        (lambda: sanity.tokenizer("mine", 0.40, 0.41, 30, 32), r"tokenizer mine is not trained: .* 0\.400 off"),
        (lambda: sanity.teacher("mine", math.log(32), math.log(32), 32), r"teacher mine is not trained: 3\.47 nats"),
        (lambda: sanity.reference("mine", 4, 128), "reference mine: 4 test images are no sample"),
        (lambda: sanity.classes("mine", 10, 9), "num_classes: expected 9, as the data has, got 10: leave it out"),
        (lambda: sanity.classes("mine", 1, 2), "num_classes: expected 2, as the data has, got 1"),
        (
            lambda: Training(epochs=4, batch=64, lr=1).count(44),
            "64 of 44 training images would train no step; set it to 5",
        ),
    ],
)
def test_worthless(check, expected):
    with pytest.raises(DDError, match=expected):
        check()


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (lambda: sanity.steps(41, 1500, 32, "tokenizer"), "tokenizer: 41 steps of 32 from 1500 images are too few"),
        (lambda: sanity.tokenizer("mine", 0.25, 0.4, 30, 32), "hard to recognise; raise train.steps"),
        (lambda: sanity.tokenizer("mine", 0.05, 0.4, 1.5, 512), "2 of 512 codes in use (perplexity), a collapsed"),
        (
            lambda: sanity.teacher("mine", 2.7, 1.3, 256),
            "teacher mine overfits: 1.30 nats on training, 2.70 on held-out",
        ),
        (lambda: sanity.reference("mine", 100, 128), "100 test images for 128 features: distances are biased"),
    ],
)
def test_doubtful(check, expected, caplog):
    check()
    assert expected in caplog.text


def test_fine(caplog):
    sanity.steps(1000, 1500, 32, "tokenizer")
    sanity.tokenizer("mine", 0.05, 0.4, 200, 256)
    sanity.teacher("mine", 1.7, 1.6, 32)
    sanity.reference("mine", 500, 64)
    sanity.classes("mine", None, 9)
    assert not caplog.records


def test_the_best_constant_picture():
    dark, light = np.zeros((3, 4, 4, 3), np.uint8), np.full((2, 4, 4, 3), 255, np.uint8)
    assert sanity.constant_error(np.concatenate([dark, light])) == pytest.approx(2 * 2 / 5)
