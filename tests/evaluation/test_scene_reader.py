"""Reading scenes back."""

import torch

from dd.evaluation.scene_reader import all_right


def test_a_picture_is_right_only_if_all_of_it_is():
    wanted = torch.tensor([[1, 0, -100], [2, 1, 0]])
    logits = torch.zeros(2, 7)
    logits[0, 1] = logits[0, 3] = logits[1, 2] = logits[1, 4] = logits[1, 5] = 1
    assert all_right(logits, wanted, (3, 2, 2)).tolist() == [True, True]
    logits[1, 6] = 2
    assert all_right(logits, wanted, (3, 2, 2)).tolist() == [True, False]
