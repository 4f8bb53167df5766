"""An experiment's networks, ready to draw; and the classes that its images are drawn from."""

import numpy as np
import pytest
import torch

from dd.errors import DDError
from dd.sampling.experiment import floor_labels, open_image_sampler


def test_without_a_student_it_is_none(tmp_path, monkeypatch):
    from tests.helpers.toy_project import make_project

    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    make_project(tmp_path)
    sampler, info = open_image_sampler("toy", tmp_path)
    assert sampler.student is None
    assert info.name == "tiny"
    assert sampler.filters.guidance == 1.5


def test_a_teacher_that_is_not_there(tmp_path, monkeypatch):
    from tests.helpers.toy_project import make_project

    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    make_project(tmp_path)
    (tmp_path / "data" / "toy" / "teacher" / "teacher.json").unlink()
    with pytest.raises(DDError):
        open_image_sampler("toy", tmp_path)


def test_classes_are_drawn_as_the_floor_has_them(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    assert floor_labels("fd-mine", 3) is None
    (tmp_path / "zoo" / "mine").mkdir(parents=True)
    np.savez(tmp_path / "zoo" / "mine" / "images.npz", labels=np.array([0, 2, 2], np.uint8))
    assert torch.equal(floor_labels("fd-mine", 3), torch.tensor([0, 2, 2]))
    assert floor_labels("fd-mine", 2) is None  # of another data set
    assert floor_labels("adm", 3) is None
