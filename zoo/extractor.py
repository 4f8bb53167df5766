"""Feature extractor of a data set: a small classifier -> zoo/<name>/extractor.safetensors."""

from __future__ import annotations

import logging
import os

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dd.data import ImageSet, load_images
from dd.machine import tune_cpu
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.precision import autocast
from dd.progress import Progress, progress
from zoo.settings import HERE, Extractor, load_settings, pick, run_stage

log = logging.getLogger(__name__)


def to_model(images: np.ndarray | Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [-1, 1]."""
    return torch.tensor(np.asarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def augment(images: Tensor, generator: torch.Generator, flip: bool, shift: int = 2) -> Tensor:
    """Mirror half of a batch and move each image by up to `shift` pixels."""
    if flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    size = images.shape[-1]
    padded = F.pad(images, (shift,) * 4, value=-1.0)
    moves = torch.randint(0, 2 * shift + 1, (2, len(images)), generator=generator)
    rows = (moves[0, :, None] + torch.arange(size))[:, :, None]  # (B, H, 1)
    columns = (moves[1, :, None] + torch.arange(size))[:, None, :]  # (B, 1, W)
    return padded[torch.arange(len(images))[:, None, None], :, rows, columns].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(model: SmallClassifier, data: ImageSet, batch: int = 500) -> float:
    """Share of images whose class is predicted right."""
    model.eval()
    hits = sum(
        int((model(to_model(data.images[i : i + batch])).logits.argmax(1).numpy() == data.labels[i : i + batch]).sum())
        for i in range(0, len(data), batch)
    )
    return hits / len(data)


def train(settings: Extractor, data: ImageSet) -> SmallClassifier:
    """One-cycle SGD with augmentation."""
    run = settings.train
    torch.manual_seed(run.seed)
    generator = torch.Generator().manual_seed(run.seed)
    size = data.images.shape[1]
    model = SmallClassifier(ClassifierConfig(len(data.classes), size, settings.channels, settings.blocks))
    model.to(memory_format=torch.channels_last)
    steps = int(run.epochs * len(data) / run.batch)
    optimizer = torch.optim.SGD(model.parameters(), run.lr, 0.9, weight_decay=run.weight_decay, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, run.lr, total_steps=steps, pct_start=0.2)
    labels = torch.as_tensor(data.labels)
    order = torch.cat([torch.randperm(len(data), generator=generator) for _ in range(int(np.ceil(run.epochs)) + 1)])
    model.train()
    bar: Progress[None] = progress(steps, unit="steps", label="extractor")
    with bar:
        for step in range(steps):
            rows = order[step * run.batch : (step + 1) * run.batch]
            images = augment(to_model(data.images[rows.numpy()]), generator, run.flip, settings.shift)
            with autocast("auto"):
                logits = model(images).logits.float()
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update(loss=loss.item())
    return model.eval()


def main(name: str) -> str:
    settings = pick(load_settings().extractors, "extractor", name)
    folder = HERE / "data" / settings.dataset
    model = train(settings, load_images(folder / "train"))
    test = load_images(folder / "test")
    share = accuracy(model, test)
    target = HERE / name / "extractor.safetensors"
    target.parent.mkdir(exist_ok=True)
    scratch = target.with_name(".extractor.safetensors")
    model.calibrate(to_model(load_images(folder / "train").images[:5000]))
    model.save(scratch, {"data": settings.dataset, "test_accuracy": round(share, 4), "classes": list(test.classes)})
    os.replace(scratch.with_suffix(".json"), target.with_suffix(".json"))
    os.replace(scratch, target)
    return f"wrote zoo/{name}/extractor.safetensors: {share:.2%} of {len(test)} test images right"


if __name__ == "__main__":
    tune_cpu()
    run_stage(main, __doc__)
