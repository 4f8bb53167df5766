"""Captions as a condition."""

import torch

from dd.text.conditions import Captions, left_pad


def test_left_padding_moves_the_text_behind():
    states = torch.arange(8.0).reshape(1, 4, 2) + 1
    padded = left_pad(states, torch.tensor([[1, 1, 0, 0]]))
    assert padded.mask.tolist() == [[False, False, True, True]]
    assert padded.states.tolist() == [[[0, 0], [0, 0], [1, 2], [3, 4]]]
    assert len(padded[:1]) == 1
    assert isinstance(padded.to("cpu"), Captions)
