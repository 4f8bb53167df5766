"""A folder of pictures."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    """Two classes, with every mode and size of picture."""
    root = tmp_path / "mine"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    rgb = Image.fromarray(pixels)
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
    rgb.save(root / "cats" / "rgb.png")
    rgb.convert("L").save(root / "cats" / "grey.png")
    rgb.convert("P").save(root / "cats" / "palette.gif")
    rgb.resize((7, 90)).save(root / "dogs" / "tall.jpg")
    transparent = rgb.convert("RGBA")
    transparent.putalpha(0)
    transparent.save(root / "dogs" / "clear.png")
    Image.fromarray(np.full((9, 9), 65535, dtype=np.uint16)).save(root / "dogs" / "deep.png")
    (root / "dogs" / "notes.txt").write_text("not a picture")
    return root
