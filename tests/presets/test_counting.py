"""Operations and launches, counted without weights."""

from dd.config import Experiment
from dd.presets.counting import count


def test_counting_needs_no_weights_and_agrees_with_the_sizes(small: Experiment):
    counts = count(small)
    # Two operations for each weight of the blocks and each token, at least; attention and heads come on top.
    floor = 2 * counts.weights / 4 * counts.tokens * 0.5
    assert floor < counts.teacher < 4 * floor
    assert counts.groups == 5
    assert counts.guided == 2
    assert counts.launches > 20
    assert counts.decoder > 0
