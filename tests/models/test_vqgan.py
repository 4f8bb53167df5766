"""Blocks of the convolutional tokenizers."""

import pytest
import torch

from dd.models.vqgan import Downsample, ResBlock, Upsample, add_border, attend_over_pixels, cut_border


def test_shapes_and_official_names():
    x = torch.randn(2, 32, 6, 6)
    assert Downsample(32)(x).shape == (2, 32, 3, 3)
    assert Upsample(32)(x).shape == (2, 32, 12, 12)
    wider = ResBlock(32, 64)
    assert wider(x).shape == (2, 64, 6, 6)
    names = {name.split(".")[0] for name in wider.state_dict()}
    assert names == {"norm1", "conv1", "norm2", "conv2", "nin_shortcut"}
    assert not hasattr(ResBlock(32, 32), "nin_shortcut")


def test_padding_is_on_the_right_and_at_the_bottom():
    layer = Downsample(1)
    with torch.no_grad():
        layer.conv.weight.fill_(1)
        layer.conv.bias.zero_()
    assert layer(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9, 6], [6, 4]]


def test_pixels_attend_to_all_pixels():
    q, k, v = torch.randn(3, 2, 5, 2, 3).unbind(0)
    rows = [m.flatten(2).mT for m in (q, k, v)]  # (B, h*w, c)
    expected = (rows[0] @ rows[1].mT * 5**-0.5).softmax(-1) @ rows[2]
    torch.testing.assert_close(attend_over_pixels(q, k, v).flatten(2).mT, expected)


@pytest.mark.parametrize("width", [0, 2])
def test_a_border_is_black_and_is_cut_off_again(width):
    images = torch.rand(1, 3, 4, 4)
    wide = add_border(images, width)
    assert wide.shape[-1] == 4 + 2 * width
    assert torch.equal(cut_border(wide, width), images)
    if width:
        assert torch.equal(wide[..., :width, :], -torch.ones(1, 3, width, 8))
