"""Samples of an experiment as ADM's npz and as PNGs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from dd import config
from dd.errors import DDError
from dd.evaluation.measure import check_folder
from dd.metrics.images import RgbBatches, write_npz, write_pngs
from dd.sampling.experiment import open_image_sampler
from dd.sampling.image_sampler import ImageSampler, sampler_label
from dd.system.progress import Progress, progress


def export(
    experiment: str, label: str | None, count: int, out: Path, pngs: Path | None = None, protocol: str | None = None
) -> str:
    """Draw `count` images of a sampler (see `choose`). Returns what was written, in one line.

    protocol: whose choice of classes is drawn; default the experiment's own.
    """
    if out.suffix != ".npz":
        raise DDError(f"expected a file that ends in .npz, got {out.name}")
    settings = config.load_experiment(experiment).evaluate
    sampler = choose(experiment, settings.samplers, label)
    image_sampler, info = open_image_sampler(experiment, config.project_root(), protocol=protocol)
    image_sampler.check(sampler)
    if reason := image_sampler.missing(sampler):
        raise DDError(f"sampler '{sampler_label(sampler)}' cannot draw: {reason}")
    for folder in (out.parent, *([pngs] if pngs else [])):
        check_folder(folder, count * 3 * info.image_size**2)
    batches = _batches(image_sampler, sampler, count, settings.batch, pngs)
    written = write_npz(out, batches, count)
    return f"wrote {out}: {written} images of {sampler_label(sampler)}" + (f", and as PNGs in {pngs}" if pngs else "")


def choose(experiment: str, samplers: Sequence[config.Sampler], label: str | None) -> config.Sampler:
    """The sampler with this label, or the only one whose label begins with it; without any, the first student."""
    by_label = {sampler_label(s): s for s in samplers if s.name not in ("real", "reconstruction")}
    if label is None:
        first = next((s for s in by_label.values() if s.name == "dd"), next(iter(by_label.values()), None))
        if first is not None:
            return first
    elif label in by_label:
        return by_label[label]
    else:
        longer = [s for name, s in by_label.items() if name.startswith(f"{label} ")]
        if len(longer) == 1:
            return longer[0]
    raise DDError(f"{experiment} has no sampler '{label or 'dd'}'; there are {', '.join(by_label) or 'none'}")


def _batches(
    image_sampler: ImageSampler, sampler: config.Sampler, count: int, size: int, pngs: Path | None
) -> Iterator[Tensor]:
    rgb, done = RgbBatches(), 0
    bar: Progress[None] = progress(count, unit="images", label="export")
    with bar:
        for images, _ in image_sampler.batches(sampler, count, size):
            pixels = rgb(images).cpu()
            if pngs:
                write_pngs(pngs, pixels, done)
            done += len(pixels)
            bar.update(len(pixels))
            yield pixels
