"""Top-k and both families' nucleus, code by code."""

import pytest
import torch

from dd.errors import DDError
from dd.models.base import Filters
from dd.models.filtering import check_top_k, keep_likely, keep_top_k, keep_top_p_ascending, keep_top_p_descending

LOGITS = torch.tensor([0.5, 0.2, 0.2, 0.06, 0.04]).log()


def kept(logits: torch.Tensor) -> list[int]:
    return (logits > -torch.inf).nonzero()[:, 0].tolist()


def test_top_k_keeps_ties():
    assert kept(keep_top_k(LOGITS, 2)) == [0, 1, 2]
    assert kept(keep_top_k(LOGITS, 0)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("p", "down", "up"), [(0.45, [0], [0]), (0.95, [0, 1, 2, 3], [0, 1, 2, 3]), (1.0, 5, 5)])
def test_the_code_that_crosses_p_is_kept(p, down, up):
    whole = [0, 1, 2, 3, 4]
    assert kept(keep_top_p_descending(LOGITS, p)) == (whole if down == 5 else down)
    assert kept(keep_top_p_ascending(LOGITS, p)) == (whole if up == 5 else up)


def test_the_families_differ_at_the_boundary():
    """A sum of exactly p: one keeps the next code, the other does not."""
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    assert kept(keep_top_p_descending(logits, 0.75)) == [0, 1, 2]
    assert kept(keep_top_p_ascending(logits, 0.75)) == [0, 1]


def test_temperature_comes_before_both():
    filters = Filters(temperature=0.5, top_k=50, top_p=0.9)
    assert kept(keep_likely(LOGITS, filters)) == kept(keep_top_p_descending(LOGITS * 2, 0.9))
    assert kept(keep_likely(LOGITS, Filters(temperature=0))) == [0, 1, 2, 3, 4]


def test_a_top_k_beyond_the_codebook():
    check_top_k(5, 5)
    with pytest.raises(DDError, match=r"top_k: expected at most 5 \(the codebook size\), got 6; lower it or use 0"):
        check_top_k(6, 5)
