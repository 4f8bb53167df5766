"""Feature extractor of a data set: a small classifier -> zoo/<name>/extractor.safetensors.

`target: attributes` makes it a reader of scenes: one answer for every fact of every region (dd.datasets.scenes).
`target: rotations` needs no classes: it learns by how many quarters a picture is turned (Gidaris et al. 2018).
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dd.datasets.packed import ImageSet, load_images
from dd.datasets.scenes import HEADS, REGIONS
from dd.evaluation.scene_reader import all_right
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.models.precision import autocast
from dd.system.progress import Progress, progress
from zoo import sanity
from zoo.pixels import mirror, move, to_model
from zoo.settings import HERE, Extractor, load_settings, pick, run_zoo

log = logging.getLogger(__name__)
ROTATIONS = (4,)  # sizes of the one answer; as "heads" it stays out of Inception scores


def augment(images: Tensor, generator: torch.Generator, flip: bool, shift: int = 2, black: bool = False) -> Tensor:
    """Mirror half of a batch and move each image by up to `shift` pixels."""
    return move(mirror(images, generator) if flip else images, generator, shift, black)


def turn(images: Tensor) -> tuple[Tensor, Tensor]:
    """Every image (B, 3, H, H) in four directions, (4 B, 3, H, H), and by how many quarters it is turned (4 B, 1)."""
    turned = [images.rot90(quarters, (2, 3)) for quarters in range(4)]
    return torch.cat(turned), torch.arange(4).repeat_interleave(len(images))[:, None]


@torch.no_grad()
def accuracy(model: SmallClassifier, data: ImageSet, targets: Tensor, batch: int = 500) -> float:
    """Share of images whose class is predicted right; of scenes, of which every fact is."""
    model.eval()
    hits = 0
    turned = model.config.heads == ROTATIONS
    for i in range(0, len(data), batch):
        images, wanted = to_model(data.images[i : i + batch]), targets[i : i + batch]
        if turned:
            images, wanted = turn(images)
        logits = model(images).logits
        right = all_right(logits, wanted, model.config.heads) if model.config.heads else logits.argmax(1) == wanted
        hits += int(right.sum())
    return hits / (len(data) * (4 if turned else 1))


def targets_of(settings: Extractor, folder: Path, data: ImageSet) -> Tensor:
    """What is to be predicted: classes (N,), or the facts (N, heads) of scenes; of rotations, nothing yet."""
    if settings.target != "attributes":
        return torch.as_tensor(data.labels)
    return torch.from_numpy(np.load(folder / "attributes.npy")).long()


def loss_of(logits: Tensor, targets: Tensor, heads: tuple[int, ...], smoothing: float) -> Tensor:
    """Cross-entropy; of several heads the mean over regions of the sum over facts."""
    if not heads:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    parts = zip(logits.split(heads, 1), targets.unbind(1), strict=True)
    asked = [(part, target) for part, target in parts if bool((target >= 0).any())]
    losses = [F.cross_entropy(part, target, label_smoothing=smoothing) for part, target in asked]
    return torch.stack(losses).sum() / (len(REGIONS) if heads == HEADS else 1)


def train(settings: Extractor, data: ImageSet, targets: Tensor) -> SmallClassifier:
    """One-cycle SGD with augmentation."""
    run = settings.train
    torch.manual_seed(run.seed)
    generator = torch.Generator().manual_seed(run.seed)
    size = data.images.shape[1]
    heads = {"labels": (), "attributes": HEADS, "rotations": ROTATIONS}[settings.target]
    model = SmallClassifier(
        ClassifierConfig(
            sum(heads) or len(data.classes), size, settings.channels, settings.blocks, grid=settings.grid, heads=heads
        )
    )
    model.to(memory_format=torch.channels_last)
    steps = run.steps or int((run.epochs or 0) * len(data) / run.batch)
    run.count(len(data))  # refuses a batch that is larger than the data
    sanity.steps(steps, len(data), run.batch, "extractor")
    optimizer = torch.optim.SGD(model.parameters(), run.lr, 0.9, weight_decay=run.weight_decay, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, run.lr, total_steps=steps, pct_start=0.2)
    order = torch.cat(
        [torch.randperm(len(data), generator=generator) for _ in range(steps * run.batch // len(data) + 2)]
    )
    model.train()
    bar: Progress[None] = progress(steps, unit="steps", label="extractor")
    with bar:
        for step in range(steps):
            rows = order[step * run.batch : (step + 1) * run.batch]
            images, wanted = to_model(data.images[rows.numpy()]), targets[rows]
            images = augment(images, generator, run.flip, settings.shift, settings.border == "black")
            if settings.target == "rotations":
                images, wanted = turn(images)
            with autocast("auto"):
                logits = model(images).logits.float()
            loss = loss_of(logits, wanted, heads, settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update(loss=loss.item())
    return model.eval()


def main(name: str) -> str:
    """Train the extractor. Returns a line for the log."""
    settings = pick(load_settings().extractors, "extractor", name)
    folder = HERE / "data" / settings.dataset
    data, test = load_images(folder / "train"), load_images(folder / "test")
    model = train(settings, data, targets_of(settings, folder / "train", data))
    share = accuracy(model, test, targets_of(settings, folder / "test", test))
    target = HERE / name / "extractor.safetensors"
    target.parent.mkdir(exist_ok=True)
    scratch = target.with_name(".extractor.safetensors")
    model.calibrate(to_model(data.images[:5000]))
    model.save(scratch, {"data": settings.dataset, "test_accuracy": round(share, 4), "classes": list(test.classes)})
    os.replace(scratch.with_suffix(".json"), target.with_suffix(".json"))
    os.replace(scratch, target)
    return f"wrote zoo/{name}/extractor.safetensors: {share:.2%} of {len(test)} test images right"


if __name__ == "__main__":
    run_zoo(main, __doc__)
