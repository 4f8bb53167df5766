"""A packed data set: pictures of one size as one uint8 array, small enough to map into memory and quick to hash.

A folder with `images.npy` (N, H, W, 3) uint8, `labels.npy` (N,) int64 and `classes.json`; of captioned pictures also
`captions.parquet`. A data set has one such folder for `train`, one for `test` and, where some are
held out, one for `validation`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from dd.errors import DDError
from dd.system.files import sha256_file

HEADER = 128  # bytes of a .npy header of this shape, whatever N is


@dataclass(frozen=True)
class ImageSet:
    """images (N, H, W, 3) uint8, labels (N,) int64, classes: their names."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> ImageSet:
        """The first `count` images; None: all."""
        return ImageSet(self.images[:count], self.labels[:count], self.classes)


class Packer:
    """Writes a packed data set picture by picture: memory does not grow with their number, a full disk is an OSError.

    with Packer(folder, size, classes) as packer:
        packer.add(picture, label)
    """

    def __init__(self, folder: Path, size: int, classes: tuple[str, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.size, self.classes = folder, size, classes
        self.labels: list[int] = []
        self.file = (folder / "images.npy").open("wb")
        self.file.write(bytes(HEADER))

    def add(self, picture: np.ndarray, label: int) -> None:
        """One picture (size, size, 3) uint8."""
        if picture.shape != (self.size, self.size, 3) or picture.dtype != np.uint8:
            raise DDError(f"expected a picture ({self.size}, {self.size}, 3) uint8, got {picture.shape}: resize it")
        self.file.write(picture.tobytes())
        self.labels.append(label)

    def __enter__(self) -> Packer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            shape = (len(self.labels), self.size, self.size, 3)
            self.file.seek(0)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self.file, header)
            assert self.file.tell() == HEADER
            np.save(self.folder / "labels.npy", np.array(self.labels, dtype=np.int64))
            text = json.dumps(list(self.classes), ensure_ascii=False) + "\n"
            (self.folder / "classes.json").write_text(text, encoding="utf-8")
        self.file.close()


def save_images(folder: Path, data: ImageSet) -> None:
    """Write a packed data set that is in memory."""
    with Packer(folder, data.images.shape[1], data.classes) as packer:
        for picture, label in zip(data.images, data.labels, strict=True):
            packer.add(picture, int(label))


def load_images(folder: Path) -> ImageSet:
    """Open a packed data set, memory-mapped. Raises DDError when it is not one."""
    try:
        return ImageSet(
            np.load(folder / "images.npy", mmap_mode="r"),
            np.load(folder / "labels.npy"),
            tuple(json.loads((folder / "classes.json").read_text(encoding="utf-8"))),
        )
    except FileNotFoundError as error:
        raise DDError(f"expected a packed data set in {folder}, {Path(error.filename).name} is missing") from None
    except ValueError as error:
        raise DDError(f"the packed data set in {folder} is damaged ({error}): pack it again") from None


def packed_hash(folder: Path) -> str:
    """SHA-256 of the names and contents of a packed data set's files, both splits: part of every fingerprint."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\0".encode())
    return digest.hexdigest()
