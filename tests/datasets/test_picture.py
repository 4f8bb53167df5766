"""One picture: its modes, ranges, crop and padding."""

import numpy as np
import pytest
from PIL import Image

from dd.datasets import picture


def test_transparency_lies_over_white_and_16_bits_are_scaled(folder):
    assert (picture.read_picture(folder / "dogs" / "clear.png", 16).pixels == 255).all()
    assert (picture.read_picture(folder / "dogs" / "deep.png", 16).pixels == 255).all()


def test_what_has_no_agreed_range_is_refused_never_black(tmp_path):
    wrong = {
        "float.tif": np.full((4, 4), 0.5, np.float32),
        "int32.tif": np.full((4, 4), 200, np.int32),
        "twelve.png": np.full((4, 4), 4000, np.uint16),
        "eight.tif": np.full((4, 4), 255, np.uint16),
    }
    said = {}
    for name, values in wrong.items():
        Image.fromarray(values).save(tmp_path / name)
        with pytest.raises(picture.UnreadableError) as error:
            picture.read_picture(tmp_path / name, 8)
        said[name] = str(error.value)
    assert said["float.tif"].startswith("mode F, values 0.5 to 0.5: which values are black and white is not known")
    assert said["int32.tif"].startswith("mode I, values 200 to 200: ")
    assert said["twelve.png"] == "mode I;16, values 4000 to 4000: looks like fewer bits in 16; convert it to 8 bits"
    assert said["eight.tif"].startswith("mode I;16, values 255 to 255: looks like")


def test_crop_and_pad():
    wide = Image.new("RGB", (40, 20), (200, 10, 10))
    assert (picture.fit(wide, 10)[:, :, 0] > 190).all()
    framed = Image.new("RGB", (40, 20), (255, 255, 255))
    framed.paste((10, 10, 10), (10, 5, 30, 15))
    padded = picture.fit(framed, 40, crop=False)
    assert (padded[0] == 255).all()  # with the picture's own edge, not with black
    assert padded[20, 20].max() < 20
