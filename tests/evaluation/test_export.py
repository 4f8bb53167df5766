"""Which sampler `dd-cli export-npz` takes."""

import pytest

from dd import config
from dd.errors import DDError
from dd.evaluation.export import choose

SAMPLERS = [
    config.RealSampler(name="real"),
    config.TeacherSampler(name="teacher"),
    config.StudentSampler(name="dd", steps=[0], noise_scale=1.04),
    config.StudentSampler(name="dd", steps=[0, 16], noise_scale=1.04),
    config.StudentSampler(name="dd", steps=[0, 16], noise_scale=1.1),
]


def test_the_first_student_without_a_label():
    assert choose("toy", SAMPLERS, None) is SAMPLERS[2]
    assert choose("toy", SAMPLERS[:2], None) is SAMPLERS[1]


def test_a_label_or_the_only_one_that_begins_with_it():
    assert choose("toy", SAMPLERS, "dd 0,16 noise 1.1") is SAMPLERS[4]
    assert choose("toy", SAMPLERS, "dd 0") is SAMPLERS[2]


@pytest.mark.parametrize("label", ["dd 0,16", "real", "dd", "d"])
def test_others_are_refused_with_the_labels_there_are(label):
    with pytest.raises(DDError, match=rf"^toy has no sampler '{label}'; there are teacher, dd 0 noise 1\.04, dd 0,16"):
        choose("toy", SAMPLERS, label)


def test_no_sampler_at_all():
    with pytest.raises(DDError, match="toy has no sampler 'dd'; there are none"):
        choose("toy", SAMPLERS[:1], None)
