"""Groups, filters, and what all teachers and tokenizers refuse."""

import pytest
import torch

from dd.errors import DDError
from dd.models.base import Filters, Groups, check_classes
from tests.helpers.small.models import make_teacher


def test_groups_cut_the_sequence():
    groups = Groups((1, 4, 9))
    assert (len(groups), groups.length, groups.starts) == (3, 14, (0, 1, 5, 14))
    assert groups.slice(1) == slice(1, 5)
    assert groups.group_of_position().tolist() == [0] + [1] * 4 + [2] * 9


def test_filters_come_from_settings_that_hold_more():
    settings = {"name": "tiny", "guidance": 2.0, "top_k": 5, "captions": None}
    assert Filters.of(settings) == Filters(guidance=2.0, top_k=5)


def test_classes_beyond_those_there_are():
    check_classes(torch.tensor([0, 3]), 3)  # the last one: no class
    check_classes(torch.tensor([], dtype=torch.int64), 3)
    with pytest.raises(
        DDError, match=r"classes: expected indices 0\.\.2 \(3 for none\), got -1\.\.4; check the labels"
    ):
        check_classes(torch.tensor([-1, 4]), 3)


def test_images_are_decoded_in_chunks():
    teacher = make_teacher("llamagen")
    codes = torch.randn(5, teacher.groups.length, teacher.codebook.shape[1])
    sizes = []
    decode = teacher.tokenizer.decode
    teacher.tokenizer.decode = lambda part: sizes.append(len(part)) or decode(part)
    whole = teacher.decode(codes)
    torch.testing.assert_close(teacher.decode(codes, chunk=2), whole, atol=1e-5, rtol=1e-4)
    assert sizes == [5, 2, 2, 1]
