"""Statistics of validation images, by the extractor of the entry's name -> zoo/<name>/validation.safetensors.

`dd-cli select` chooses knobs on them. Images that the reference of that name holds too are refused.
"""

from __future__ import annotations

import numpy as np
import torch

from dd.datasets.packed import load_images
from dd.evaluation.selection import check_disjoint
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.protocols import VALIDATION, protocol
from dd.metrics.references import build_reference, load_reference
from zoo.reference import batches
from zoo.settings import HERE, load_settings, pick, run_zoo


def main(name: str) -> str:
    """Make the reference. Returns a line for the log."""
    settings = pick(load_settings().validations, "validation", name)
    images = load_images(HERE / "data" / settings.dataset / "validation")
    extractor = ClassifierExtractor(HERE / name / "extractor.safetensors")
    target = HERE / name / "validation.safetensors"
    scratch = target.with_name(".validation.safetensors")
    made = build_reference(
        scratch,
        protocol=f"fd-{name}{VALIDATION}",
        extractor=extractor,
        images=batches(images),
        labels=torch.from_numpy(np.array(images.labels)),
        source=f"validation images of {settings.dataset}",
    )
    check_disjoint(made, load_reference(HERE / name / "reference.safetensors", protocol(f"fd-{name}"), extractor))
    scratch.replace(target)
    return f"wrote zoo/{name}/validation.safetensors: {made.gaussian.count} images"


if __name__ == "__main__":
    run_zoo(main, __doc__)
