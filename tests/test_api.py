"""dd.load: drawing with what ships and with what was trained here, and every mistake in one line."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import dd
from dd.checkpoints import zoo
from dd.checkpoints.students import save_student_dir
from dd.errors import DDError
from tests.helpers.toy_project import tiny_student


def test_load_draws_uint8_images(shipped_project):
    model = dd.load("toy")
    assert model.classes == ("hat", "shoe", "bag")
    images = model.sample(classes=["shoe", "bag"], steps=1, seed=0)
    assert images.shape == (2, 6, 6, 3)
    assert images.dtype == np.uint8
    assert model.sample(n=0).shape == (0, 6, 6, 3)
    assert len(model.sample()) == 3


def test_classes_as_they_are_printed(shipped_project):
    """The exact name first; another case only where it is unique."""
    model = replace(dd.load("toy"), classes=("A", "a", "Komodo dragon"))
    assert [model.class_names([name]) for name in ("A", "a", "Komodo dragon")] == [["A"], ["a"], ["Komodo dragon"]]
    assert [model._index(name) for name in (*model.class_names(), "komodo Dragon", "1")] == [0, 1, 2, 2, 1]
    shoes = replace(model, classes=("Shoe", "SHOE", "bag"))
    with pytest.raises(DDError, match="class 'shoe': toy has 'Shoe' and 'SHOE'; spell it as one of them"):
        shoes.sample("shoe")
    with pytest.raises(DDError, match="no class 'komodo' in toy; did you mean Komodo dragon"):
        model.sample("komodo")


def test_an_image_is_a_function_of_seed_index_and_class(shipped_project):
    model = dd.load("toy")
    images = model.sample(["hat", "bag"], n=6, seed=3)
    assert np.array_equal(images, model.sample(["hat", "bag"], n=6, seed=3, batch=2))
    assert np.array_equal(images[:2], model.sample([0, 2], seed=3))
    assert not np.array_equal(images, model.sample(["hat", "bag"], n=6, seed=4))
    assert not np.array_equal(images, model.sample(["hat", "bag"], n=6, seed=3, noise_scale=2.0))


@pytest.mark.parametrize("steps", [1, 2, [0, 2, 7], "teacher"])
def test_all_ways_to_draw(shipped_project, steps):
    assert dd.load("toy").sample("hat", n=2, steps=steps).shape == (2, 6, 6, 3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"classes": "boot"}, "no class 'boot' in toy; there are hat, shoe, bag"),
        ({"classes": "sho"}, "no class 'sho' in toy; did you mean shoe?"),
        ({"classes": 3}, "class: expected an index in 0..2 or a name, got 3"),
        ({"classes": []}, "classes: expected at least one, got an empty list"),
        ({"n": -1}, "n: expected a number of images, 0 or more, got -1"),
        ({"noise_scale": 0.0}, "noise_scale: expected a number above 0, got 0"),
        ({"noise_scale": float("nan")}, "noise_scale: expected a number above 0, got nan"),
        ({"steps": "teacher", "noise_scale": 1.1}, "noise_scale: the teacher's noise is always 1, got 1.1"),
        ({"batch": 0}, "batch: expected at least 1, got 0"),
        ({"steps": 3}, "steps: this student was trained from the points 0, 4, so it draws in 1..2 steps, got 3"),
        ({"steps": 0}, "so it draws in 1..2 steps, got 0"),
        ({"steps": [0, 9]}, "stay below the teacher's 9 groups"),
        ({"steps": "student"}, "steps: expected a number of evaluations, a list of groups, or 'teacher'"),
    ],
)
def test_mistakes_from_python(shipped_project, arguments, expected):
    with pytest.raises(DDError) as error:
        dd.load("toy").sample(**arguments)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_experiment(shipped_project):
    with pytest.raises(DDError, match=r"^no experiment or student 'toi'; did you mean toy"):
        dd.load("toi")


def test_a_student_of_the_zoo_by_its_own_name(shipped_project):
    model = dd.load("toy-dd")
    assert model.timesteps == (0, 4)
    assert model.sample("hat", steps=2).shape == (1, 6, 6, 3)


def test_what_was_trained_here_wins(shipped_project):
    shipped = dd.load("toy").sample("hat")
    student, config = tiny_student(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    target = shipped_project / "models" / "toy"
    save_student_dir(
        target, student, config, shipped_project / "data" / "toy" / "teacher", {"settings": {"timesteps": [0, 2]}}
    )
    try:
        model = dd.load("toy")
        assert model.timesteps == (0, 2)
        assert not np.array_equal(model.sample("hat"), shipped)
    finally:
        for file in target.iterdir():
            file.unlink()


def test_without_a_student_the_teacher_still_draws(shipped_project, monkeypatch):
    entries = {name: entry for name, entry in zoo.entries().items() if name != "toy-dd"}
    monkeypatch.setattr(zoo, "entries", lambda: entries)
    model = dd.load("toy")
    assert model.sample("hat", steps="teacher").shape == (1, 6, 6, 3)
    with pytest.raises(DDError, match=r"toy: there is no distilled student: .* \(dvc repro distill@toy\)"):
        model.sample("hat")
