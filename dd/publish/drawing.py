"""What the page of `dd-cli app` draws, without the page: the same noise by several samplers, with times."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dd.api import Model, Steps
from dd.checkpoints.exported import TokenizerOnly
from dd.errors import DDError

MOST_LETTERS = 1_000  # of a prompt: more is a paste by mistake, and encoders read far less
MOST_IMAGES = 25
SIDE = 480  # pixels of a grid on the page, about
GAP = 4
NUMBERS = ("one", "two", "three", "four")
Picture = NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True)
class Drawn:
    """The images of one sampler as one grid. seconds: for all of them, decoding included."""

    title: str
    picture: Picture
    images: int
    seconds: float

    @property
    def caption(self) -> str:
        """Such as `one step: 9 images in 0.03 s`."""
        return f"{self.title}: {self.images} image{'s' * (self.images > 1)} in {self.seconds:.2f} s"


def samplers(model: Model) -> dict[str, Steps]:
    """What can draw, by its name on the page: one step, two steps, ..., and the teacher where its weights are there."""
    student = {
        f"{NUMBERS[number - 1]} step{'s' * (number > 1)}": number for number in range(1, len(model.timesteps) + 1)
    }
    found: dict[str, Steps] = dict(student) if model.student is not None else {}
    if not isinstance(model.teacher, TokenizerOnly):
        found["teacher"] = "teacher"
    return found


def draw(model: Model, wanted: str, seed: float, images: float, chosen: Sequence[str]) -> list[Drawn]:
    """`images` images of a class or prompt by each chosen sampler, all from the noise of `seed`.

    Raises DDError, one line, for an empty or endless prompt, an unknown class, a seed that is none, no sampler.
    """
    known = samplers(model)
    if unknown := [name for name in chosen if name not in known] or not chosen:
        raise DDError(f"samplers: expected some of {', '.join(known)}, got {unknown if chosen else 'none'}")
    count, start = _whole("images", images, 1, MOST_IMAGES), _whole("seed", seed, 0, 2**31 - 1)
    what = {"prompts": [_prompt(wanted)]} if model.text_encoder else {"classes": [wanted]}
    found = []
    for name in known:
        if name in chosen:
            begun = time.perf_counter()
            drawn = model.sample(**what, n=count, steps=known[name], seed=start)  # type: ignore[arg-type]
            found.append(Drawn(name, tiled(drawn), count, time.perf_counter() - begun))
    return found


def _whole(name: str, value: float | None, low: int, high: int) -> int:
    if value is None or not math.isfinite(value) or value != int(value) or not low <= value <= high:
        raise DDError(f"{name}: expected a whole number from {low} to {high}, got {value}")
    return int(value)


def _prompt(text: str | None) -> str:
    text = (text or "").strip()
    if not text:
        raise DDError("prompt: expected some words, got none")
    if len(text) > MOST_LETTERS:
        raise DDError(f"prompt: expected at most {MOST_LETTERS:,} letters, got {len(text):,}: shorten it")
    return text


def tiled(images: NDArray[np.uint8]) -> Picture:
    """Images (N, H, W, 3) as one square grid, small ones enlarged by whole pixels, white between."""
    count, height, width, _ = images.shape
    columns = math.ceil(math.sqrt(count))
    rows, scale = math.ceil(count / columns), max(1, SIDE // (columns * width))
    cell = (height * scale + GAP, width * scale + GAP)
    page = np.full((rows * cell[0] - GAP, columns * cell[1] - GAP, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * cell[0], (index % columns) * cell[1]
        page[top : top + cell[0] - GAP, left : left + cell[1] - GAP] = image.repeat(scale, 0).repeat(scale, 1)
    return page


def side_by_side(drawn: Sequence[Drawn]) -> Picture:
    """The grids beside each other, for the download."""
    between = np.full((drawn[0].picture.shape[0], 4 * GAP, 3), 255, dtype=np.uint8)
    parts = [part for one in drawn for part in (one.picture, between)]
    return np.concatenate(parts[:-1], axis=1)
