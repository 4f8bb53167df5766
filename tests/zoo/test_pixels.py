"""Pictures as networks read them, moved and mirrored."""

import numpy as np
import torch

from zoo.pixels import mirror, move, to_model


def test_bytes_become_numbers_from_minus_one_to_one():
    images = np.zeros((2, 4, 5, 3), np.uint8)
    images[1] = 255
    found = to_model(images)
    assert found.shape == (2, 3, 4, 5)
    assert (float(found[0].max()), float(found[1].min())) == (-1, 1)


def test_a_move_is_a_shift_by_whole_pixels():
    images = torch.arange(36.0).view(1, 1, 6, 6).expand(8, 3, 6, 6)
    moved = move(images, torch.Generator().manual_seed(0), shift=2)
    inner = {tuple(image[0, 2:4, 2:4].flatten().tolist()) for image in moved}
    whole = {
        tuple(images[0, 0, row : row + 2, column : column + 2].flatten().tolist())
        for row in range(5)
        for column in range(5)
    }
    assert inner <= whole
    assert len(inner) > 1
    assert torch.equal(move(images, torch.Generator().manual_seed(0), shift=0), images)
    black = move(torch.ones(20, 1, 4, 4), torch.Generator().manual_seed(0), shift=2, black=True)
    assert set(black.unique().tolist()) == {-1.0, 1.0}


def test_a_mirror_turns_about_half_of_them():
    images = torch.arange(3.0).expand(200, 1, 1, 3)
    turned = mirror(images, torch.Generator().manual_seed(0))[:, 0, 0, 0] == 2
    assert 60 < int(turned.sum()) < 140
