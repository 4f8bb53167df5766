"""Sizes of an experiment's networks, without their files."""

from dd.presets import preset_experiment
from dd.presets.sizes import meta_networks, sizes


def test_sizes_are_those_of_the_networks(small):
    found = sizes(small)
    teacher, student = meta_networks(small)
    assert next(teacher.parameters()).device.type == "meta"
    assert (found.tokens, found.groups) == (teacher.groups.length, len(teacher.groups))
    assert found.teacher_parameters == sum(tensor.numel() for tensor in teacher.state_dict().values())
    assert found.student_parameters == sum(tensor.numel() for tensor in student.state_dict().values())
    assert found.image_size == 28
    assert found.caption_bytes == 0


def test_captions_have_states_on_disk():
    assert sizes(preset_experiment("t2i-fashion-refined")).caption_bytes == 2 * 40 * 384
