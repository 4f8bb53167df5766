"""What the ADM evaluator would refuse or mis-measure in a file of samples, found before it runs (`dd-cli check-npz`).

The evaluator (guided-diffusion, evaluations/evaluator.py) takes an npz with one array `arr_0` (N, H, W, 3) and casts it
to float as it is: it does not look at the type, the range, the order or where the images have been. The images are read
here in pieces; 50,000 of 256 x 256 need no more memory than a few hundred of them.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dd.errors import DDError
from dd.metrics.images import load_npz
from dd.metrics.jpeg import jpeg_excess
from dd.metrics.protocols import Protocol

Level = Literal["refused", "mis-measured", "note"]
IMAGES, LABELS = "arr_0", "arr_1"
SPLIT = 5_000  # images of one of the evaluator's Inception scores, taken as they come
PIECE = 256
THUMBNAILS, JPEG_SAMPLE = 2_000, 256
JPEG = 0.1  # excess of `jpeg_excess` above which images are said to have been JPEGs
SORTED = 0.9  # distance of neighbours over that of others below which classes are said to come one after the other


@dataclass(frozen=True)
class Finding:
    """One line of the check. refused: the evaluator stops; mis-measured: its numbers would not be this model's."""

    level: Level
    text: str


@dataclass
class Check:
    """What a file of samples holds, and what is wrong with it. Counts that were not taken are None."""

    path: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    lowest: float | None = None
    highest: float | None = None
    duplicates: int | None = None
    blank: int | None = None
    classes: int | None = None
    jpeg_excess: float | None = None
    neighbour_distance: float | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing is refused or mis-measured; notes do not count."""
        return all(one.level == "note" for one in self.findings)

    def add(self, level: Level, text: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(level, text))

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        return {**asdict(self), "shape": list(self.shape), "good": self.good}


@dataclass(frozen=True)
class Samples:
    """The array of images in an npz, read in pieces: `shape` and `dtype` come from its header."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    names: tuple[str, ...]

    def pieces(self, size: int = PIECE) -> Iterator[NDArray[Any]]:
        """Arrays of up to `size` images, in order. Raises DDError for a file that ends too early."""
        with _array(self.path) as (stream, _, _):
            bytes_each = int(np.prod(self.shape[1:])) * self.dtype.itemsize
            for start in range(0, self.shape[0], size):
                count = min(size, self.shape[0] - start)
                data = _read(stream, count * bytes_each, self.path)
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])


def open_samples(path: Path) -> Samples:
    """The images of an npz. Raises DDError for what is no npz, has no arr_0, or holds Python objects."""
    with _array(path) as (_, header, names):
        shape, fortran, dtype = header
        if dtype.hasobject:
            raise DDError(f"{path}: {IMAGES} holds Python objects: save one uint8 array (N, H, W, 3)")
        if fortran:
            raise DDError(f"{path}: {IMAGES} is in Fortran order: save numpy.ascontiguousarray of it")
        return Samples(path, tuple(shape), dtype, names)


@contextmanager
def _array(path: Path) -> Iterator[tuple[IO[bytes], tuple[Any, ...], tuple[str, ...]]]:
    """The stream behind the header of arr_0, the header, and the names of all arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = tuple(name.removesuffix(".npy") for name in archive.namelist())
            if IMAGES not in names:
                raise DDError(f"{path} has no array {IMAGES} (found: {', '.join(names) or 'none'}): name it so")
            with archive.open(f"{IMAGES}.npy") as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                yield stream, read(stream), names
    except FileNotFoundError:
        raise DDError(f"expected an npz file at {path}, there is none: check the path") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DDError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DDError(f"{path} is truncated or no npz ({reason}): make it again") from error


def _read(stream: IO[bytes], size: int, path: Path) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise DDError(f"{path} ends in the middle of its images: make it again")
    return data


def check_samples(path: Path, protocol: Protocol) -> Check:
    """Look at a file of samples as a protocol's evaluator would. Raises DDError for a file that cannot be read."""
    samples = open_samples(path)
    check = Check(str(path), samples.shape, str(samples.dtype))
    if _check_form(check, samples, protocol):
        _check_pixels(check, samples)
        _check_labels(check, samples, protocol)
    return check


def _check_form(check: Check, samples: Samples, protocol: Protocol) -> bool:
    """Shape and number; whether the pixels can be looked at."""
    shape = samples.shape
    if any(name in samples.names for name in ("mu", "sigma")):
        check.add("mis-measured", "the file holds mu and sigma, which the evaluator takes in place of the images")
    if len(shape) != 4 or not shape[0]:
        check.add("refused", f"expected images of shape (N, H, W, 3), got {shape}")
        return False
    if shape[3] != 3:
        why = "channels come first: transpose to (N, H, W, 3)" if shape[1] == 3 else f"{shape[3]} channels: repeat grey"
        check.add("refused", f"expected images of shape (N, H, W, 3), got {shape}: {why}")
        return False
    side = protocol.image_size
    if side and shape[1:3] != (side, side):
        text = (
            f"{shape[1]} x {shape[2]} pixels, the reference's images have {side} x {side}: the resize is measured too"
        )
        check.add("mis-measured", text)
    if shape[0] != protocol.images:
        name = protocol.metric_name(shape[0])
        text = f"{shape[0]:,} images, the protocol takes {protocol.images:,}: another number, call it '{name}'"
        check.add("mis-measured", text)
    return True


def _check_pixels(check: Check, samples: Samples) -> None:
    """Range, equal images, order and JPEG traces, in one pass."""
    every = max(1, samples.shape[0] // JPEG_SAMPLE)
    seen: Counter[bytes] = Counter()
    thumbnails: list[NDArray[Any]] = []
    some: list[NDArray[Any]] = []
    low, high, first, blank = np.inf, -np.inf, 0, 0
    for piece in samples.pieces():
        low, high = min(low, piece.min()), max(high, piece.max())
        blank += int((piece.reshape(len(piece), -1) == piece[:, :1, :1, :1].reshape(-1, 1)).all(1).sum())
        seen.update(hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in piece)
        if first < THUMBNAILS:
            thumbnails.append(_thumbnails(piece[: THUMBNAILS - first]))
        some += [image for number, image in enumerate(piece, first) if number % every == 0]
        first += len(piece)
    check.lowest, check.highest, check.blank = float(low), float(high), blank
    check.duplicates = sum(seen.values()) - len(seen)
    _judge_range(check, samples.dtype)
    if check.duplicates:
        check.add("mis-measured", f"{check.duplicates:,} images are exact copies of others: the sampler repeats itself")
    if blank:
        check.add("mis-measured", f"{blank:,} images have one colour only: look at the network that drew them")
    if samples.dtype == np.uint8 and min(samples.shape[1:3]) >= 32:
        _judge_jpeg(check, np.stack(some[:JPEG_SAMPLE]))
    _judge_order(check, np.concatenate(thumbnails))


def _judge_range(check: Check, dtype: np.dtype[Any]) -> None:
    assert check.lowest is not None
    assert check.highest is not None
    used = f"{check.lowest:g} to {check.highest:g}"
    if dtype != np.uint8:
        text = f"expected uint8 from 0 to 255, got {dtype} from {used}: the evaluator takes any number as a brightness"
        check.add("mis-measured", text)
    elif check.highest <= 1 or check.highest - check.lowest < 64:
        check.add("mis-measured", f"only values from {used} are used: were the images scaled to 0 to 255?")


def _judge_jpeg(check: Check, images: NDArray[np.uint8]) -> None:
    check.jpeg_excess = round(jpeg_excess(images), 4)
    if check.jpeg_excess > JPEG:
        text = "the images have been JPEGs (their 8 x 8 blocks show): Inception sees it; write PNGs or the npz directly"
        check.add("mis-measured", text)


def _thumbnails(images: NDArray[Any]) -> NDArray[np.float32]:
    """(B, 48): mean colours of a grid of 4 x 4 fields."""
    count, height, width, _ = images.shape
    rows, columns = max(height // 4, 1), max(width // 4, 1)
    cut = images[:, : rows * (height // rows), : columns * (width // columns)].astype(np.float32)
    return cut.reshape(count, height // rows, rows, width // columns, columns, 3).mean((2, 4)).reshape(count, -1)


def _judge_order(check: Check, thumbnails: NDArray[np.float32]) -> None:
    """Neighbours that look more alike than others: classes come one after the other, which spoils the splits of IS."""
    if len(thumbnails) < 100:
        return
    near = np.linalg.norm(thumbnails[1:] - thumbnails[:-1], axis=1)
    far = np.linalg.norm(thumbnails - np.random.default_rng(0).permutation(thumbnails), axis=1)
    if far.mean() <= 0:
        return
    check.neighbour_distance = round(float(near.mean() / far.mean()), 4)
    error = np.hypot(near.std() / np.sqrt(len(near)), far.std() / np.sqrt(len(far)))
    if check.neighbour_distance < SORTED and far.mean() - near.mean() > 5 * error:
        check.add("mis-measured", f"neighbouring images are alike: sorted by class? {_SCORE}")


_SCORE = f"The Inception score is taken of {SPLIT:,} images as they come: mix them (FID is the same)"


def _check_labels(check: Check, samples: Samples, protocol: Protocol) -> None:
    """arr_1, if there: one class an image, each as often, mixed."""
    if LABELS not in samples.names:
        check.add("note", f"no labels ({LABELS}): whether every class has as many images was not looked at")
        return
    labels = load_npz(samples.path, (LABELS,))[LABELS]
    count = samples.shape[0]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        text = f"{LABELS}: expected one class number an image ({count:,}), got {labels.dtype} of shape {labels.shape}"
        check.add("mis-measured", text)
        return
    sizes = Counter(labels.tolist())
    check.classes = len(sizes)
    if protocol.labels == "balanced" and max(sizes.values()) - min(sizes.values()) > 1:
        text = (
            f"{LABELS}: classes have {min(sizes.values())} to {max(sizes.values())} images, the protocol takes as many"
        )
        check.add("mis-measured", f"{text} of each")
    split = labels[: min(SPLIT, max(count // 10, 1))]
    if len(sizes) > 1 and len(set(split.tolist())) < min(len(sizes), len(split)) / 2:
        check.add("mis-measured", f"{LABELS}: classes come one after the other. {_SCORE}")
