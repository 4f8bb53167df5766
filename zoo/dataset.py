"""Data set -> zoo/data/<name>/{train,test} (and validation): packed uint8 images (dd.datasets.packed).

Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT licence) comes from a local folder, else from its public address, else
from Debian's package `dataset-fashion-mnist`, unpacked without root; its four files are pinned by SHA-256.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from torchvision.datasets import FashionMNIST

from dd.datasets.folder import pack_folder
from dd.datasets.packed import ImageSet, load_images, save_images
from dd.errors import DDError
from dd.system.files import publish, sha256_file
from zoo.settings import HERE, Dataset, load_settings, pick, run_zoo

log = logging.getLogger(__name__)

FASHION_CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
FASHION_URL = os.environ.get("DD_FASHION_MNIST_URL", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def make(settings: Dataset, target: Path) -> dict[str, int]:
    """Write the splits below `target`; returns their sizes. Raises DDError."""
    sizes = both(settings, target)
    if not settings.validation:
        return sizes
    train = load_images(target / "train")
    parts = hold_out(ImageSet(np.array(train.images), train.labels, train.classes), settings.validation)
    for name, part in parts.items():
        save_images(target / name, part)
    return {name: len(part) for name, part in parts.items()} | {"test": sizes["test"]}


def hold_out(train: ImageSet, count: int) -> dict[str, ImageSet]:
    """A training split without the last images of each class, and those: `count` in all, as `validation`."""
    each, held_out = count // len(train.classes), np.zeros(len(train), dtype=bool)
    for label, name in enumerate(train.classes):
        (rows,) = np.nonzero(train.labels == label)
        if not 0 < each < len(rows):
            raise DDError(f"validation: expected 1 to {len(rows) - 1} images of class '{name}', got {each}")
        held_out[rows[-each:]] = True
    return {
        "train": ImageSet(train.images[~held_out], train.labels[~held_out], train.classes),
        "validation": ImageSet(train.images[held_out], train.labels[held_out], train.classes),
    }


def both(settings: Dataset, target: Path) -> dict[str, int]:
    """Write the training and the test split."""
    if settings.source == "fashion-mnist":
        splits = fashion_mnist(settings)
        for name, split in splits.items():
            save_images(target / name, split)
        return {name: len(split) for name, split in splits.items()}
    return pack_folder(
        settings.path(),
        target,
        settings.image_size,
        settings.crop,
        settings.unreadable,
        settings.test_path(),
        settings.test_share,
    )


def fashion_mnist(settings: Dataset) -> dict[str, ImageSet]:
    """Fashion-MNIST from the first source that has it, checked."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = _fashion_folder(settings.folder, Path(scratch))
        raw = Path(scratch) / "FashionMNIST" / "raw"  # where torchvision looks for the unpacked files
        raw.mkdir(parents=True)
        for name, expected in FASHION_FILES.items():
            got = sha256_file(folder / name)
            if got != expected:
                raise DDError(
                    f"{folder / name}: expected SHA-256 {expected[:12]}..., got {got[:12]}...; fetch it again"
                )
            (raw / name.removesuffix(".gz")).write_bytes(gzip.decompress((folder / name).read_bytes()))
        opened = {"train": FashionMNIST(scratch, train=True), "test": FashionMNIST(scratch, train=False)}
        return {
            name: on_black_squares(split.data.numpy(), split.targets.numpy(), settings.image_size)
            for name, split in opened.items()
        }


def on_black_squares(pictures: np.ndarray, labels: np.ndarray, size: int) -> ImageSet:
    """Grey pictures (N, H, W) uint8 in the middle of black squares of `size` pixels, in three equal channels."""
    rows, columns = pictures.shape[1:]
    if max(rows, columns) > size:
        raise DDError(
            f"Fashion-MNIST has pictures of {rows} x {columns}; expected image_size at least that, got {size}"
        )
    top, left = (size - rows) // 2, (size - columns) // 2
    padded = np.pad(pictures, ((0, 0), (top, size - rows - top), (left, size - columns - left)))
    return ImageSet(np.repeat(padded[..., None], 3, axis=-1), labels.astype(np.int64), FASHION_CLASSES)


def _fashion_folder(given: str | None, scratch: Path) -> Path:
    places = [Path(given).expanduser()] if given else []
    if local := os.environ.get("DD_FASHION_MNIST"):
        places.insert(0, Path(local))
    for place in (*places, SYSTEM_FOLDER):
        if all((place / name).is_file() for name in FASHION_FILES):
            log.info("Fashion-MNIST from %s", place)
            return place
    problems = [f"not in {' or '.join(map(str, (*places, SYSTEM_FOLDER)))}"]
    for name, source in (("the public address", _from_address), ("the Debian package", _from_debian)):
        try:
            return source(scratch)
        except (OSError, subprocess.SubprocessError) as error:
            problems.append(f"{name}: {error}")
    raise DDError(
        f"Fashion-MNIST could not be had ({'; '.join(problems)}); place {', '.join(FASHION_FILES)} in a folder and "
        "set DD_FASHION_MNIST to it"
    )


def _from_address(scratch: Path) -> Path:
    """Fetch the four files from their public address."""
    log.info("Fashion-MNIST from its public address")
    for name in FASHION_FILES:
        with urllib.request.urlopen(FASHION_URL + name, timeout=15) as reply, (scratch / name).open("wb") as out:
            shutil.copyfileobj(reply, out)
    return scratch


def _from_debian(scratch: Path) -> Path:
    """Take the four files from a package of Debian."""
    log.info("Fashion-MNIST from the Debian package %s", DEBIAN_PACKAGE)
    run = {"cwd": scratch, "check": True, "capture_output": True, "timeout": 300}
    try:
        subprocess.run(["apt-get", "download", DEBIAN_PACKAGE], **run)  # type: ignore[call-overload]
    except subprocess.CalledProcessError:  # a new machine has no package lists yet; own lists need no root
        lists = [f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache"]
        for folder in ("lists/partial", "cache/archives/partial"):
            (scratch / folder).mkdir(parents=True)
        subprocess.run(["apt-get", *lists, "update"], **run)  # type: ignore[call-overload]
        subprocess.run(["apt-get", *lists, "download", DEBIAN_PACKAGE], **run)  # type: ignore[call-overload]
    (package,) = scratch.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package.name, "unpacked"], **run)  # type: ignore[call-overload]
    return scratch / "unpacked" / SYSTEM_FOLDER.relative_to("/")


def main(name: str) -> str:
    """Make the data set. Returns a line for the log."""
    settings = pick(load_settings().datasets, "data set", name)
    target = HERE / "data" / name
    scratch = target.with_name(f".{name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    sizes = make(settings, scratch)
    publish(scratch, target)
    return f"wrote zoo/data/{name}: {', '.join(f'{v} {k} images' for k, v in sizes.items())}"


if __name__ == "__main__":
    run_zoo(main, __doc__)
