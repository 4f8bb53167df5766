"""Reference statistics of a data set's test images, by its own extractor -> zoo/<dataset>/reference.safetensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dd.data import ImageSet, load_images
from dd.machine import tune_cpu
from dd.metrics.extractor import ClassifierExtractor
from dd.metrics.reference import build_reference
from zoo.settings import HERE, load_settings, pick, run_stage


def batches(data: ImageSet, size: int = 500) -> Iterator[Tensor]:
    """(B, 3, H, W) uint8 in the data set's order."""
    for start in range(0, len(data), size):
        yield torch.from_numpy(np.array(data.images[start : start + size])).permute(0, 3, 1, 2)


def main(name: str) -> str:
    settings = pick(load_settings().extractors, "extractor", name)
    test = load_images(HERE / "data" / settings.dataset / "test")
    target = HERE / name / "reference.safetensors"
    made = build_reference(
        target,
        protocol=f"fd-{name}",
        extractor=ClassifierExtractor(HERE / name / "extractor.safetensors"),
        images=batches(test),
        labels=torch.from_numpy(np.array(test.labels)),
        source=f"test images of {settings.dataset}",
    )
    return f"wrote zoo/{name}/reference.safetensors: {made.gaussian.count} images, {len(made.gaussian.mean)} features"


if __name__ == "__main__":
    tune_cpu()
    run_stage(main, __doc__)
