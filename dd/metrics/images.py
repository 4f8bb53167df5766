"""Images on their way to a metric: checked, uint8, RGB; and out of it: the ADM npz, a folder of PNGs."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dd.checkpoints.safe import atomic_path
from dd.errors import DDError

log = logging.getLogger(__name__)


def to_uint8(images: Tensor) -> Tensor:
    """Float images (B, C, H, W) in about [-1, 1] to uint8, rounded to nearest. NaN and infinities are refused."""
    if images.dtype == torch.uint8:
        return images
    finite = torch.isfinite(images).flatten(1).all(1)
    if not bool(finite.all()):
        bad = torch.nonzero(~finite).flatten().tolist()
        raise DDError(
            f"expected finite images, got NaN or infinity in {len(bad)} of {len(images)} (first: image {bad[0]} of its "
            "batch): look at the network that drew them"
        )
    return ((images.float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


class RgbBatches:
    """Turns batches into uint8 RGB of one size, and says what it had to change (once)."""

    def __init__(self, image_size: int | None = None) -> None:
        self.size = image_size
        self.notes: list[str] = []

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [-1, 1] or uint8, C 1 or 3, to (B, 3, H, W) uint8."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DDError(f"expected images of shape (B, 3, H, W) or (B, 1, H, W), got {tuple(images.shape)}")
        height, width = images.shape[2:]
        self.size = self.size or height
        if (height, width) != (self.size, self.size):
            raise DDError(
                f"expected images of {self.size} x {self.size}, got {height} x {width}: "
                "metrics need one size, resize the images first"
            )
        if images.shape[1] == 1:
            self._note("greyscale images were converted to RGB by repeating their channel")
            images = images.expand(-1, 3, -1, -1)
        return to_uint8(images)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            log.warning(text)
            self.notes.append(text)


def image_files(folder: Path) -> list[Path]:
    """Images of a folder and the folders in it, sorted. Raises DDError when there are fewer than two."""
    suffixes = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes)
    if len(files) < 2:
        raise DDError(f"expected at least 2 images in {folder}, found {len(files)}: a distance needs a sample")
    return files


def read_images(files: Sequence[Path], batch: int = 250) -> Iterable[Tensor]:
    """Batches (B, 3, H, W) uint8 of image files, which must all have one size. Greyscale is converted."""
    size: tuple[int, int] | None = None
    rows: list[np.ndarray] = []
    for path in files:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise DDError(f"{path} is not a readable image ({error}): remove or replace it") from error
        size = size or pixels.shape[:2]
        if pixels.shape[:2] != size:
            raise DDError(
                f"expected all images of one size, got {size[1]} x {size[0]} and then {pixels.shape[1]} x "
                f"{pixels.shape[0]} ({path}): resize them first"
            )
        rows.append(pixels)
        if len(rows) == batch:
            yield _stack(rows)
            rows = []
    if rows:
        yield _stack(rows)


def _stack(rows: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()


def load_npz(path: Path, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an npz (those of `names`, else all) without pickles. Raises DDError for a truncated or foreign file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names or file.files}
    except FileNotFoundError:
        raise DDError(f"expected an npz file at {path}, there is none: check the path") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DDError(f"{path} is truncated or no npz of plain arrays ({reason}): fetch or make it again") from error


def write_npz(path: Path, batches: Iterable[Tensor], count: int) -> int:
    """Stream images into the npz of ADM's evaluator: one array `arr_0` (N, H, W, 3) uint8. Returns N.

    Only one batch is in memory; the file takes its name when all `count` images are in it.
    """
    written = 0
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        with archive.open("arr_0.npy", "w", force_zip64=True) as out:
            for images in batches:
                pixels = images[: count - written].permute(0, 2, 3, 1).contiguous().numpy()
                if written == 0:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *pixels.shape[1:])}
                    np.lib.format.write_array_header_2_0(out, header)
                out.write(pixels.tobytes())
                written += len(pixels)
                if written == count:
                    break
        if written != count:
            raise DDError(f"expected {count} images for {path.name}, got {written}: nothing was written")
    return written


def write_pngs(folder: Path, images: Tensor, start: int = 0) -> None:
    """Write (B, 3, H, W) uint8 images as 000000.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(pixels).save(folder / f"{start + i:06d}.png", compress_level=1)
