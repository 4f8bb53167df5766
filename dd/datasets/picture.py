"""One picture file as (size, size, 3) uint8, or the reason why not. Never silently black.

Rules: transparency lies over white; of several frames the first counts; 16-bit grey is scaled by 1/257. What has no
agreed range (float, 32-bit integers, 12 bits stored in 16) is refused with its mode and range.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow hands these to other programs or to plug-ins that are not there.
FOREIGN = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
TWELVE_BITS = 4096  # a 16-bit picture whose values stay below holds fewer bits


class UnreadableError(Exception):
    """Why a file is not read. picture: it is one, or ought to be."""

    def __init__(self, reason: str, picture: bool = True) -> None:
        super().__init__(reason)
        self.picture = picture


@dataclass(frozen=True)
class Picture:
    """pixels (size, size, 3) uint8; of the file: kind (PNG), mode (RGBA), width and height in pixels.

    grey: all three channels are equal. border: its edge has one colour (within 8 of 255), whatever lies inside.
    """

    pixels: np.ndarray
    kind: str
    mode: str
    width: int
    height: int
    grey: bool
    border: bool


@cache
def kinds() -> tuple[str, ...]:
    """Kinds of files that are opened: all of Pillow's own."""
    Image.init()
    return tuple(kind for kind in Image.ID if kind not in FOREIGN)


@cache
def suffixes() -> frozenset[str]:
    """Suffixes of picture files, those that Pillow cannot open here included."""
    Image.init()
    return frozenset(Image.EXTENSION) | {".svg", ".heic", ".heif", ".avif", ".jxl", ".exr", ".raw", ".cr2", ".nef"}


def read_picture(path: Path, size: int, crop: bool = True) -> Picture:
    """A file as a picture of `size` pixels. Raises UnreadableError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=kinds()) as image:
                kind, mode, (width, height) = image.format or "?", image.mode, image.size
                image.draft("RGB", (2 * size, 2 * size))  # JPEG: decode no more than is needed
                plain = to_rgb(image)
        pixels = square(plain, size, crop)
    except UnidentifiedImageError:
        raise UnreadableError("Pillow does not know its format", path.suffix.lower() in suffixes()) from None
    except Image.DecompressionBombError:
        raise UnreadableError(f"more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels twice over") from None
    except (OSError, SyntaxError, ValueError, IndexError, TypeError, EOFError, MemoryError, OverflowError) as error:
        raise UnreadableError(f"damaged ({' '.join(str(error).split()) or type(error).__name__})"[:160]) from None
    grey = bool((pixels == pixels[..., :1]).all())
    return Picture(pixels, kind, mode, width, height, grey, _plain_edge(np.asarray(plain)))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture in RGB, upright. Raises UnreadableError for what has no agreed range."""
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    cut = image.mode in ("RGB", "RGBA") and ";16" in str(getattr(image, "tile", ""))  # Pillow keeps the upper 8 bits
    image = ImageOps.exif_transpose(image) or image
    if cut and 0 < max(high for _, high in image.convert("RGB").getextrema()) < TWELVE_BITS >> 8:  # type: ignore[misc]
        raise UnreadableError(f"mode {image.mode} of 16 bits, values below {TWELVE_BITS}: convert it to 8 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    if image.mode in ("F", "I") or deep:
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if not deep or 0 < high < TWELVE_BITS or low < 0:
            what = "looks like fewer bits in 16" if deep else "which values are black and white is not known"
            raise UnreadableError(f"mode {image.mode}, values {low:g} to {high:g}: {what}; convert it to 8 bits")
        image = Image.fromarray((values.astype(np.float64) / 257).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def fit(image: Image.Image, size: int, crop: bool = True) -> np.ndarray:
    """A picture in memory as (size, size, 3) uint8."""
    return square(to_rgb(image), size, crop)


def square(image: Image.Image, size: int, crop: bool) -> np.ndarray:
    """An RGB picture as (size, size, 3) uint8: the middle cut out, or padded with the colour of its own edge."""
    method = Image.Resampling.LANCZOS
    if crop or image.width == image.height:
        return np.asarray(ImageOps.fit(image, (size, size), method=method), dtype=np.uint8)
    edge = tuple(int(c) for c in np.median(_edge(np.asarray(image)), 0))
    return np.asarray(ImageOps.pad(image, (size, size), method=method, color=edge), dtype=np.uint8)


def _edge(pixels: np.ndarray) -> np.ndarray:
    """Outermost pixels (N, 3)."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _plain_edge(pixels: np.ndarray) -> bool:
    edge = _edge(pixels).astype(np.int16)
    return bool((np.abs(edge - np.median(edge, 0)) <= 8).all(1).mean() > 0.95)
