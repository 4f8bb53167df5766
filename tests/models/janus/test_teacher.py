"""Janus against transformers' own generation, with random weights of tiny sizes."""

import pytest
import torch

from dd.errors import DDError
from dd.models.base import Filters
from dd.models.janus.student import JanusStudentConfig
from dd.models.janus.teacher import JanusTeacher
from dd.models.janus.transformer import JanusConfig, Transformer
from dd.text.conditions import Captions
from tests.parity.janus import (
    LENGTHS,
    SIZES,
    generate,
    greedy,
    prompts,
    random_tokens,
    stepwise,
)


@pytest.mark.parametrize("guidance", [1.5, 5.0])
def test_greedy_tokens_are_those_of_transformers(theirs, teacher, guidance):
    condition = prompts()
    expected = generate(theirs, condition, guidance)
    found = greedy(teacher, condition, guidance)
    assert torch.equal(found, expected)
    assert len(torch.unique(expected)) > 8  # a constant would be no evidence
    assert len({tuple(row.tolist()) for row in expected}) == len(LENGTHS)


@pytest.mark.parametrize("row", range(len(LENGTHS)))
def test_a_prompt_alone_gives_what_it_gives_in_a_batch(theirs, teacher, row):
    """Also without any padding, as a single prompt comes out of the processor."""
    together = greedy(teacher, prompts())
    alone = prompts()[row : row + 1]
    assert torch.equal(greedy(teacher, alone), together[row : row + 1])
    short = Captions(alone.states[:, -LENGTHS[row] :], alone.mask[:, -LENGTHS[row] :])
    assert torch.equal(greedy(teacher, short), together[row : row + 1])
    assert torch.equal(generate(theirs, short), together[row : row + 1])


@pytest.mark.parametrize("prefix", [0, 1, 7])
def test_a_prefix_is_taken_in_at_once(teacher, prefix):
    tokens = random_tokens(3)
    more = {"guidance": 5.0, "top_k": 20, "top_p": 0.9, "temperature": 0.8}
    found = stepwise(teacher, prompts(), tokens, prefix=prefix, **more)
    expected = teacher.score(tokens, prompts(), Filters(**more))
    torch.testing.assert_close(found, expected[:, prefix:], atol=2e-4, rtol=1e-4)
    assert 1 <= (found > -torch.inf).sum(-1).max() <= 20


def test_refusals(teacher):
    with pytest.raises(DDError, match=r"guidance_tokens: Janus guides every token \(-1\), got 3; leave it out"):
        teacher.start(prompts(), Filters(guidance=5.0, guidance_tokens=3))
    with pytest.raises(DDError, match="prefix: expected at most 16 tokens, got 17; shorten it"):
        teacher.start(prompts(), Filters(), torch.zeros(3, 17, dtype=torch.int64))
    with pytest.raises(DDError, match="noise_guess need teacher_input"):
        JanusStudentConfig(refinements=2)
    with pytest.raises(DDError, match=r"a transformer of 48 codes and 16 tokens .* got 20 codes and 9 tokens"):
        JanusTeacher(Transformer(JanusConfig(**SIZES | {"vocab_size": 20, "block_size": 9})), teacher.tokenizer)
    state = teacher.start(prompts(), Filters(), torch.zeros(3, 15, dtype=torch.int64))
    teacher.advance(state, torch.zeros(3, 1, dtype=torch.int64))
    with pytest.raises(DDError, match="all 16 tokens are drawn; start a new state for more images"):
        teacher.log_probs(state)
