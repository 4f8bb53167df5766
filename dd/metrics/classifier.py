"""A small residual image classifier: the feature extractor of experiments too small for an Inception network.

It gives logits (class accuracy, Inception score), pooled features before the last layer (Frechet and kernel
distances, precision, recall) and the maps of its stages (a perceptual loss for the student's continuous head).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dd.errors import DDError


@dataclass(frozen=True)
class ClassifierConfig:
    """Architecture of a `SmallClassifier`; stored beside the weights as JSON.

    channels: width of each stage; every stage after the first halves the resolution. The last one is the width of
    the features. blocks: residual blocks of each stage (0: the stage is its one opening convolution).
    feature_scale: the features are multiplied by it. The kernel of KID, (x.y / F + 1)^3, supposes features whose
    root mean square is about 1, and distances then have a readable size; see `SmallClassifier.calibrate`.
    grid: features are pooled over grid x grid parts of the image, so that they know where things are.
    heads: sizes of several answers that stand one after the other in the logits (their sum is num_classes); empty: one.
    """

    num_classes: int = 10
    image_size: int = 32
    channels: tuple[int, ...] = (32, 64, 128)
    blocks: tuple[int, ...] = (0, 1, 1)
    feature_scale: float = 1.0
    grid: int = 1
    heads: tuple[int, ...] = ()

    @property
    def feature_width(self) -> int:
        """F, the width of the pooled features."""
        return self.channels[-1] * self.grid**2

    def __post_init__(self) -> None:
        if self.heads and sum(self.heads) != self.num_classes:
            raise DDError(
                f"expected heads that add up to {self.num_classes} classes, got {self.heads}: mend one of them"
            )
        if not self.channels or len(self.channels) != len(self.blocks):
            raise DDError(
                f"expected one number of blocks for each stage, got channels {self.channels} and blocks {self.blocks}: "
                "give two lists of the same length"
            )


class ClassifierOutput(NamedTuple):
    """features: (B, F) pooled features before the last layer; logits: (B, num_classes)."""

    features: Tensor
    logits: Tensor


class SmallClassifier(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to class logits and features. H = W = config.image_size."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (3, *config.channels[:-1])
        self.body = nn.ModuleList(
            _stage(width_in, width, blocks, stride=1 if i == 0 else 2)
            for i, (width_in, width, blocks) in enumerate(zip(inputs, config.channels, config.blocks, strict=True))
        )
        self.head = nn.Linear(config.feature_width, config.num_classes)

    def stages(self, images: Tensor) -> list[Tensor]:
        """The map after each stage: (B, channels[i], H / 2^i, W / 2^i), differentiable."""
        size = self.config.image_size
        if images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise DDError(
                f"expected images of shape (B, 3, {size}, {size}), got {tuple(images.shape)}: "
                "resize them or use another classifier"
            )
        maps = []
        h = images.contiguous(memory_format=torch.channels_last)
        for stage in self.body:
            h = stage(h)
            maps.append(h)
        return maps

    def forward(self, images: Tensor) -> ClassifierOutput:
        """Images (B, 3, H, W) in [-1, 1] to features (B, F) and logits (B, num_classes)."""
        last = self.stages(images)[-1]
        if self.config.grid == 1:
            pooled = last.mean(dim=(2, 3))  # (B, F)
        else:
            pooled = F.adaptive_avg_pool2d(last, self.config.grid).flatten(1)
        return ClassifierOutput(pooled * self.config.feature_scale, self.head(pooled))

    @torch.no_grad()
    def calibrate(self, images: Tensor, batch: int = 500) -> None:
        """Set `feature_scale` so that the features of these images (N, 3, H, W) have root mean square 1."""
        self.eval()
        self.config = replace(self.config, feature_scale=1.0)
        squares = torch.cat([self(part).features.double().square().mean(1) for part in images.split(batch)])
        scale = float(squares.mean().rsqrt())
        if not 0 < scale < float("inf"):
            raise DDError(f"expected features that are not all 0, their scale is {scale}: train the classifier first")
        self.config = replace(self.config, feature_scale=float(f"{scale:.4g}"))

    def perceptual_distance(self, images: Tensor, targets: Tensor) -> Tensor:
        """(B,) mean over stages of the squared distance of channel-normalised maps (as LPIPS, Zhang et al. 2018)."""
        distances = [
            (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean(dim=(1, 2))
            for a, b in zip(self.stages(images), self.stages(targets), strict=True)
        ]
        return torch.stack(distances).mean(0)

    def save(self, path: str | Path, about: Mapping[str, object] | None = None) -> None:
        """Write weights to `path` (.safetensors) and the configuration to the .json beside it.

        about: further facts for the JSON (test accuracy, data, licence).
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}, path)
        record = {"config": asdict(self.config), "about": dict(about or {})}
        path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> SmallClassifier:
        """Read a classifier back, in evaluation mode, without gradients for its weights."""
        path = Path(path)
        for needed in (path, path.with_suffix(".json")):
            if not needed.is_file():
                raise DDError(f"expected a classifier's weights and configuration, no file {needed}: check the path")
        try:
            stored = json.loads(path.with_suffix(".json").read_text())["config"]
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
            model = cls(ClassifierConfig(**fields))
            model.load_state_dict(load_file(path))
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).replace("\n", " ")
            raise DDError(f"{path} is no classifier of this program ({reason}): make it again") from error
        return model.eval().requires_grad_(False)


def _stage(width_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    opening = [nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*opening, *(_Block(width) for _ in range(blocks)))


class _Block(nn.Module):
    """x + two convolutions, ReLU behind the sum (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm2.weight)  # every block starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(h)))
