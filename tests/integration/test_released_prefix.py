"""The authors' unmasked prefix: a named switch, off by default, on in the rows that measure their released students."""

import pytest
import torch
import yaml

from dd import config
from dd.errors import DDError
from dd.models.base import Filters
from dd.presets import preset_names, preset_text
from dd.sampling.image_sampler import ImageSampler, class_conditions, prefix_as_released, sampler_label
from tests.helpers.tiny import CLASSES, tiny_student, tiny_teacher

PLAIN = config.TeacherInvolvedSampler(name="dd+teacher", steps=(0, 2), teacher_start=1)
QUIRK = config.TeacherInvolvedSampler(name="dd+teacher", steps=(0, 2), teacher_start=1, released_prefix=True)


def image_sampler(family: str) -> ImageSampler:
    teacher = tiny_teacher(family)
    conditions = class_conditions(CLASSES, torch.device("cpu"))
    return ImageSampler(teacher, conditions, Filters(guidance=2.0), 0, tiny_student(teacher, family).eval())


def guided(teacher, unmasked: bool) -> torch.Tensor:
    """Logits of scale 1 (4 tokens) behind a prefix of one."""
    prefix = torch.tensor([[3], [5]])
    with prefix_as_released(teacher, unmasked):
        return teacher.guided_logits(teacher.start(torch.tensor([0, 1]), Filters(guidance=2.0), prefix))


def test_the_switch_changes_the_prefix_and_is_put_back():
    teacher = tiny_teacher("var")
    proper, quirk = guided(teacher, False), guided(teacher, True)
    assert float((proper - quirk).abs().max()) > 1e-3
    assert teacher.released_prefix is False
    with pytest.raises(KeyError), prefix_as_released(teacher, True):
        raise KeyError
    assert teacher.released_prefix is False


def test_the_sampler_switches_it_for_its_own_images_only(monkeypatch):
    found = image_sampler("var")
    seen: list[bool] = []
    start = found.teacher.start

    def watched(*arguments):
        seen.append(found.teacher.released_prefix)
        return start(*arguments)

    monkeypatch.setattr(found.teacher, "start", watched)
    for sampler in (PLAIN, QUIRK, PLAIN):
        found.check(sampler)
        found.codes(sampler, torch.arange(3))
    assert seen == [False, True, False]
    assert sampler_label(QUIRK) == "dd+teacher 0,2 from 1, released prefix"


def test_only_var_has_it():
    with pytest.raises(
        DDError, match=r"^released_prefix: the released code of LlamaGenTeacher has no prefix of its own; drop it$"
    ):
        image_sampler("llamagen").check(QUIRK)


@pytest.mark.parametrize("name", preset_names())
def test_presets_use_it_where_released_numbers_are_measured_again(name):
    samplers = yaml.safe_load(preset_text(name))[name]["evaluate"]["samplers"]
    for sampler in samplers:
        behind_prefix = sampler["name"] == "dd+teacher" and sampler["teacher_start"] > 0
        wanted = behind_prefix and name.startswith("var") and name.endswith("-released")
        assert sampler.get("released_prefix", False) == wanted, sampler
