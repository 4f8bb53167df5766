"""States of captions for a rehearsal: the right shape, the same every time."""

import pytest
import torch

from dd.errors import DDError
from dd.text.random_states import IDS, RandomStates


def test_a_caption_has_its_own_states_on_the_right():
    found = RandomStates(8).encode(["a red boot", "two bags"], 6)
    assert found.states.shape == (2, 6, 8)
    assert found.mask.tolist() == [[False] * 2 + [True] * 4, [False] * 3 + [True] * 3]  # one a word, one for the end
    assert not found.states[~found.mask].any()
    alone = RandomStates(8).encode(["two bags"], 6)
    assert torch.equal(alone.states[0], found.states[1])
    assert RandomStates(8).stored == "float16"


def test_ids_where_the_teacher_reads_the_text():
    found = RandomStates(1).encode(["one two three four"], 3)
    assert found.states.dtype == torch.int64
    assert found.mask.all()
    assert 0 <= int(found.states.min()) <= int(found.states.max()) < IDS
    assert RandomStates(1).stored == "int32"


def test_an_empty_caption_is_refused():
    with pytest.raises(DDError, match="caption 2: expected some words, got an empty one; write or remove it"):
        RandomStates(8).encode(["a bag", "  "], 3)
