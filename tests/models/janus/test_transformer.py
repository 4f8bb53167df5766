"""Janus's transformer against transformers' own."""

import pytest
import torch

from dd.models.base import Filters
from tests.parity.janus import (
    prompts,
    random_tokens,
    stepwise,
    their_logits,
)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_logits_are_those_of_transformers(theirs, teacher, guidance):
    """Its language model, head and guidance over the whole sequence at once, without a cache."""
    condition, tokens = prompts(), random_tokens(1)
    expected = their_logits(theirs, condition, tokens, guidance)
    if guidance == 1:
        torch.testing.assert_close(teacher.logits(tokens, condition), expected, atol=2e-4, rtol=0)
    assert expected.std() > 0.1
    found = teacher.score(tokens, condition, Filters(guidance=guidance))
    torch.testing.assert_close(found, expected.log_softmax(-1), atol=2e-4, rtol=0)
    torch.testing.assert_close(stepwise(teacher, condition, tokens, guidance=guidance), found, atol=2e-4, rtol=0)
