"""Image data: any folder of class folders, and Fashion-MNIST's idx files, as one uint8 array.

A *packed data set* is a folder with `images.npy` (N, H, W, 3) uint8, `labels.npy` (N,) int64 and `classes.json`,
split into `train` and `test`: small enough to be memory-mapped, quick to hash, nothing to decode in training.
"""

from __future__ import annotations

import gzip
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dd.errors import DDError

log = logging.getLogger(__name__)
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True)
class ImageSet:
    """images (N, H, W, 3) uint8, labels (N,) int64, classes: their names."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def save_images(folder: Path, data: ImageSet) -> None:
    """Write a packed data set."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", data.images)
    np.save(folder / "labels.npy", data.labels)
    (folder / "classes.json").write_text(json.dumps(list(data.classes)) + "\n")


def load_images(folder: Path) -> ImageSet:
    """Open a packed data set, memory-mapped. Raises DDError when it is not one."""
    try:
        return ImageSet(
            np.load(folder / "images.npy", mmap_mode="r"),
            np.load(folder / "labels.npy"),
            tuple(json.loads((folder / "classes.json").read_text())),
        )
    except FileNotFoundError as error:
        raise DDError(f"expected a packed data set in {folder}, {Path(error.filename).name} is missing") from None


def fit(image: Image.Image, size: int, crop: bool = True) -> np.ndarray:
    """Any picture as (size, size, 3) uint8: transparency over white, shorter side resized, centre cut out.

    crop False pads to a square with black instead of cutting.
    """
    image = ImageOps.exif_transpose(image) or image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    if image.mode.startswith("I;16") or image.mode == "I":  # 16-bit greyscale
        image = Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
    image = image.convert("RGB")
    square = ImageOps.fit if crop else ImageOps.pad
    return np.asarray(square(image, (size, size), method=Image.Resampling.LANCZOS), dtype=np.uint8)


def read_folder(root: Path, size: int, crop: bool = True, on_error: str = "refuse") -> ImageSet:
    """A folder of class folders as an ImageSet, files in sorted order.

    on_error 'refuse' raises DDError that names the first unreadable files; 'skip' leaves them out and says so.
    """
    if not root.is_dir():
        raise DDError(f"expected a folder of class folders at {root}, found none")
    classes = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not classes:
        raise DDError(f"{root} has no class folders; expected {root.name}/<class>/<image>.png and so on")
    images, labels, bad = [], [], []
    for label, name in enumerate(classes):
        files = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise DDError(f"class folder '{name}' holds no images ({', '.join(sorted(SUFFIXES))})")
        for path in files:
            try:
                with Image.open(path) as image:
                    images.append(fit(image, size, crop))
                labels.append(label)
            except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                bad.append(str(path.relative_to(root)))
    if bad and on_error != "skip":
        raise DDError(
            f"{len(bad)} unreadable image file(s) in {root}: {', '.join(bad[:5])}{', ...' if len(bad) > 5 else ''}; "
            "remove them or set unreadable: skip"
        )
    if bad:
        log.warning("skipped %d unreadable file(s): %s", len(bad), ", ".join(bad))
    if not images:
        raise DDError(f"no readable image in {root}")
    return ImageSet(np.stack(images), np.array(labels, dtype=np.int64), classes)


def read_idx(images: Path, labels: Path, size: int, classes: tuple[str, ...]) -> ImageSet:
    """A pair of gzipped idx files (MNIST format), centred on a black square of `size` pixels."""
    pictures = _idx(images, 3)
    targets = _idx(labels, 1).astype(np.int64)
    if len(pictures) != len(targets):
        raise DDError(f"{images.name} holds {len(pictures)} images but {labels.name} {len(targets)} labels")
    rows, columns = pictures.shape[1:]
    if max(rows, columns) > size:
        raise DDError(f"{images.name} holds {rows} x {columns} pictures; expected at most {size} x {size}")
    top, left = (size - rows) // 2, (size - columns) // 2
    padded = np.pad(pictures, ((0, 0), (top, size - rows - top), (left, size - columns - left)))
    return ImageSet(np.repeat(padded[..., None], 3, axis=-1), targets, classes)


def _idx(path: Path, dimensions: int) -> np.ndarray:
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise DDError(f"{path.name}: not a readable gzip file ({error})") from None
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise DDError(f"{path.name}: expected an idx file of uint8 with {dimensions} dimensions")
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    body = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dimensions)
    if body.size != np.prod(shape):
        raise DDError(f"{path.name}: expected {np.prod(shape)} values, got {body.size}")
    return body.reshape(shape)
