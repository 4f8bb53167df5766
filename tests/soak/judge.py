"""A classifier that only judges: trained apart, of another design than the extractors, used for no training or choice.

    python -m zoo.dataset fashion                                     # zoo/data/fashion
    python -m tests.soak.judge train judge.pt
    python -m tests.soak.judge measure judge.pt llamagen-fashion 2000 # teacher, one and two steps: distance, diversity

Depthwise 7 x 7 convolutions, LayerNorm and GELU. Distances are to 5,000 training images.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dd
from dd.config import project_root
from dd.datasets.packed import ImageSet, load_images
from dd.metrics.distances import frechet
from dd.metrics.moments import ClassSpread, Moments

EPOCHS, BATCH, RATE, WIDTH = 3, 128, 3e-3, 96


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """x + a depthwise convolution and two pointwise ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        deep = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.body = nn.Sequential(
            deep, ChannelNorm(width), nn.Conv2d(width, 3 * width, 1), nn.GELU(), nn.Conv2d(3 * width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Judge(nn.Module):
    """Grey images (B, 1, 28, 28) in [-1, 1] to features (B, 96) and logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        half = WIDTH // 2
        stem = [nn.Conv2d(1, half, 4, stride=2, padding=1), ChannelNorm(half), Block(half), ChannelNorm(half)]
        self.body = nn.Sequential(*stem, nn.Conv2d(half, WIDTH, 2, stride=2), Block(WIDTH), Block(WIDTH))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.norm(self.body(x).mean((2, 3)))
        return pooled * self.scale, self.head(pooled)


def grey(images: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 1, H, W) in [-1, 1]."""
    return torch.tensor(images[..., 0]).float()[:, None] / 127.5 - 1


@torch.no_grad()
def run(judge: Judge, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Features and logits of images (N, H, W, 3) uint8."""
    parts = [judge(part) for part in grey(images).split(500)]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def train(train_set: ImageSet, test: ImageSet, target: Path, epochs: int = EPOCHS) -> float:
    """Train, set the features' root mean square to 1, write; returns the accuracy on the test set."""
    torch.manual_seed(77)
    x, y, judge = grey(train_set.images), torch.tensor(train_set.labels).long(), Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=RATE, weight_decay=0.05)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH)[: len(x) // BATCH]:
            images = x[rows].flip(3) if torch.rand(()) < 0.5 else x[rows]
            images = images.roll(tuple(torch.randint(-2, 3, (2,)).tolist()), (2, 3))
            loss = F.cross_entropy(judge(images)[1], y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    features, logits = run(judge.eval(), test.images)
    judge.scale.copy_(features.square().mean().rsqrt())
    torch.save(judge.state_dict(), target)
    return float((logits.argmax(1) == torch.tensor(test.labels)).float().mean())


def summary(judge: Judge, images: np.ndarray, labels: np.ndarray) -> tuple[Moments, float]:
    """Moments of the features, and their variance within classes."""
    features = run(judge, images)[0].numpy()
    moments, spread = Moments(WIDTH, len(features), 1), ClassSpread(WIDTH, 10, len(features))
    moments.add(features)
    spread.add(features, labels)
    found = spread.estimate()
    assert found is not None
    return moments, found.value


def measure(judge: Judge, real: ImageSet, name: str, count: int) -> None:
    """Print distance and diversity of an experiment's teacher and student."""
    pick = np.sort(np.random.default_rng(5).permutation(len(real))[:5000])
    reference, width = summary(judge, real.images[pick], real.labels[pick])
    model, labels = dd.load(name), np.arange(count) % 10
    for steps in ("teacher", 1, 2):
        images = model.sample(classes=labels.tolist(), steps=steps, seed=999)
        moments, spread = summary(judge, np.asarray(images), labels)
        print(name, steps, round(frechet(moments.gaussian(), reference.gaussian()), 3), round(spread / width, 3))


if __name__ == "__main__":
    data = project_root() / "zoo" / "data" / "fashion"
    real = load_images(data / "train")
    if sys.argv[1] == "train":
        print("accuracy", train(real, load_images(data / "test"), Path(sys.argv[2])))
    else:
        network = Judge()
        network.load_state_dict(torch.load(sys.argv[2], weights_only=True))
        measure(network.eval(), real, sys.argv[3], int(sys.argv[4]))
