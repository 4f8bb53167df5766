"""Reference statistics of a data set's test images, by its own extractor -> zoo/<dataset>/reference.safetensors.

Also a sample of its training images (images.npz), by which the floors of the results table are measured anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dd.datasets.packed import ImageSet, load_images
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.references import build_reference
from dd.system.files import atomic_path
from zoo import sanity
from zoo.settings import HERE, load_settings, pick, run_zoo

MANY_CLASSES = 100


def batches(data: ImageSet, size: int = 500) -> Iterator[Tensor]:
    """(B, 3, H, W) uint8 in the data set's order."""
    for start in range(0, len(data), size):
        yield torch.from_numpy(np.array(data.images[start : start + size])).permute(0, 3, 1, 2)


def floor_images(train: ImageSet, count: int = 10_000) -> dict[str, np.ndarray]:
    """`count` training images: what the rows `real` and `reconstruction` are measured on.

    The classes in turn (many of them in random order, so that the first images are of any); or, where the smallest
    class would leave out more than a third of the images, as often as they are in the data.
    images (N, H, W, 3) or, where all three channels are equal, (N, H, W); labels (N,).
    """
    labels = np.asarray(train.labels)
    members = [np.flatnonzero(labels == c) for c in range(max(1, len(train.classes)))]
    each = min(count // len(members), min(len(m) for m in members))
    if each * len(members) >= min(count, len(labels)) * 2 / 3:
        if len(members) > MANY_CLASSES:
            members = [members[i] for i in np.random.default_rng(0).permutation(len(members))]
        rows = np.stack([m[:each] for m in members], 1).reshape(-1)
    else:
        rows = np.random.default_rng(0).permutation(len(labels))[:count]
    images = np.asarray(train.images)[rows]
    grey = bool((images == images[..., :1]).all())
    return {"images": images[..., 0] if grey else images, "labels": labels[rows].astype(np.uint16)}


def scene_images(folder: Path, train: ImageSet, count: int = 5000) -> dict[str, np.ndarray]:
    """The first `count` training scenes (they are in random order), with what a reader should find there."""
    facts = np.load(folder / "attributes.npy")[:count]
    return {
        "images": np.asarray(train.images[:count]),
        "labels": train.labels[:count].astype(np.uint16),
        "attributes": facts,
    }


def main(name: str) -> str:
    """Make the reference. Returns a line for the log."""
    settings = pick(load_settings().references, "reference", name)
    test = load_images(HERE / "data" / settings.dataset / "test")
    extractor = ClassifierExtractor(HERE / name / "extractor.safetensors")
    sanity.reference(name, len(test), extractor.feature_width)
    target = HERE / name / "reference.safetensors"
    made = build_reference(
        target,
        protocol=f"fd-{name}",
        extractor=extractor,
        images=batches(test),
        labels=torch.from_numpy(np.array(test.labels)),
        source=f"test images of {settings.dataset}",
        classes=len(test.classes),
    )
    with atomic_path(HERE / name / "images.npz") as scratch, open(scratch, "wb") as file:
        folder = HERE / "data" / settings.dataset / "train"
        train = load_images(folder)
        floor = scene_images(folder, train) if (folder / "attributes.npy").is_file() else floor_images(train)
        np.savez_compressed(file, **floor)  # type: ignore[arg-type]
    size = f"{made.gaussian.count} images, {len(made.gaussian.mean)} features"
    return f"wrote zoo/{name}/reference.safetensors and images.npz: {size}"


if __name__ == "__main__":
    run_zoo(main, __doc__)
