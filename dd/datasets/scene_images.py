"""Pictures of scenes (dd.datasets.scenes), put together from grey photographs of single items on black.

Fashion-MNIST's are such.

A photograph becomes a silhouette (what is not black) that is tinted with one colour by its own shading, and laid on a
plain light background.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from dd.datasets.scenes import COLOURS, REGIONS, Random, Scene, Thing, random_numbers

SIZE = 64  # of a picture, in pixels
NORMAL, SMALL = 28, 19  # of an item, in pixels
BACKGROUND = (240, 238, 233)
# The brightest shade of each colour.
PAINT = {
    "red": (225, 40, 45),
    "yellow": (245, 205, 40),
    "green": (45, 160, 70),
    "blue": (45, 80, 215),
    "purple": (140, 60, 180),
    "pink": (250, 150, 185),
    "black": (70, 70, 75),
    "pale blue": (150, 205, 250),
}
CENTRES = {"centre": (32, 32), "left": (16, 32), "right": (48, 32), "top": (32, 16), "bottom": (32, 48)}


def silhouette(photograph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A grey photograph (H, W) uint8 as shading in 0..1 (the item's own brightest parts: 1) and its mask in 0..1."""
    grey = photograph.astype(np.float32)
    present = Image.fromarray((grey > 10).astype(np.uint8) * 255)
    closed = present.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.MinFilter(3))  # dark spots are no holes
    brightest = max(float(np.percentile(grey[grey > 10], 95)) if (grey > 10).any() else 1.0, 1.0)
    return np.clip(grey / brightest, 0, 1), np.asarray(closed, dtype=np.float32) / 255


def paint(photograph: np.ndarray, colour: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The tinted item (size, size, 3) float32 in 0..255 and its opacity (size, size, 1)."""
    shading, mask = silhouette(photograph)
    low = 0.35 if colour == "black" else 0.5
    tone = np.asarray(PAINT[colour], dtype=np.float32) * (low + (1 - low) * shading[..., None])
    layers = np.concatenate([tone * mask[..., None], mask[..., None] * 255], -1)  # colour times opacity, then opacity
    resized = [
        np.asarray(Image.fromarray(layer).resize((size, size), Image.Resampling.BILINEAR))
        for layer in np.moveaxis(layers, -1, 0)
    ]
    return np.stack(resized[:3], -1), resized[3][..., None] / 255


def places(thing: Thing, size: int) -> list[tuple[int, int]]:
    """Centres (x, y) of one or two copies: two stand side by side, or one above the other where it is narrow."""
    x, y = CENTRES[REGIONS[thing.region]]
    if thing.count == 1:
        return [(x, y)]
    half = size // 2 + 1
    if REGIONS[thing.region] in ("left", "right"):
        return [(x, y - half), (x, y + half)]
    return [(x - half, y), (x + half, y)]


def render(scene: Scene, pools: Sequence[np.ndarray], seed: int, index: int, jitter: int = 0) -> np.ndarray:
    """A scene as (64, 64, 3) uint8. pools: photographs (n, H, W) uint8 of every item, some of which it takes.

    jitter: pixels that a thing may lie off its place, either way.
    """
    random = random_numbers(seed, index, stream=1)
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = BACKGROUND
    for thing in scene.things:
        size = SMALL if thing.small else NORMAL
        move = random.integers(-jitter, jitter + 1, 2)
        for x, y in places(thing, size):
            _lay(canvas, _photograph(pools[thing.item], random), COLOURS[thing.colour], size, np.array((x, y)) + move)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _photograph(pool: np.ndarray, random: Random) -> np.ndarray:
    return pool[int(random.integers(len(pool)))]


def _lay(canvas: np.ndarray, photograph: np.ndarray, colour: str, size: int, centre: np.ndarray) -> None:
    """Lay a painted item over the canvas (in place), as far inside as it fits."""
    tone, opacity = paint(photograph, colour, size)
    left, top = np.clip(centre - size // 2, 0, SIZE - size)
    part = canvas[top : top + size, left : left + size]
    part[:] = part * (1 - opacity) + tone
