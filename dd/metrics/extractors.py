"""Opening a feature extractor by kind; our own classifiers and TorchScript files as extractors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dd.checkpoints.safe import sha256_file
from dd.errors import DDError
from dd.metrics import inception
from dd.metrics.classifier import SmallClassifier
from dd.metrics.features import Extractor, Features, MissingWeights


class ClassifierExtractor(Extractor):
    """One of our own classifiers: pooled features before the last layer."""

    def __init__(self, path: Path, device: str | torch.device = "cpu", name: str | None = None) -> None:
        if not path.is_file():
            raise MissingWeights(f"no extractor at {path}: make it with `dvc repro zoo/dvc.yaml`, or `dvc pull` it")
        self.model = SmallClassifier.load(path).to(device)
        self.device = torch.device(device)
        self.name = name or f"classifier-{path.parent.name}"
        self.preprocessing = f"x / 127.5 - 1; features x {self.model.config.feature_scale:g}"
        self.weights_sha256 = sha256_file(path)
        self.feature_width = self.model.config.feature_width
        self.image_size = self.model.config.image_size

    def extract(self, images: Tensor) -> Features:
        out = self.model(images.to(self.device).float() / 127.5 - 1)
        single = not self.model.config.heads  # several answers are no one distribution to take an Inception score of
        return Features(out.features.cpu(), out.logits.cpu() if single else None)


class TorchScriptExtractor(Extractor):
    """Any TorchScript module that maps float images (B, 3, H, W) in [-1, 1] to (B, F), or to (features, logits).

    TorchScript is a program: load only files whose origin you trust.
    """

    preprocessing = "x / 127.5 - 1"

    def __init__(
        self, path: Path, image_size: int, device: str | torch.device = "cpu", name: str | None = None
    ) -> None:
        if not path.is_file():
            raise MissingWeights(f"no TorchScript extractor at {path}: check the path")
        try:
            self.model = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise DDError(f"{path} is no TorchScript file ({reason}): export it with torch.jit.save") from error
        self.device = torch.device(device)
        self.name = name or f"torchscript-{path.stem}"
        self.weights_sha256 = sha256_file(path)
        self.image_size = image_size
        self.feature_width = self.extract(torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)).features.shape[
            1
        ]

    @torch.inference_mode()
    def extract(self, images: Tensor) -> Features:
        out = self.model(images.to(self.device).float() / 127.5 - 1)
        features, logits = out if isinstance(out, tuple) else (out, None)
        if features.ndim != 2:
            raise DDError(
                f"extractor {self.name} returned features of shape {tuple(features.shape)}: expected (B, F), pool them"
            )
        return Features(features.float().cpu(), None if logits is None else logits.float().cpu())


def open_extractor(kind: str, path: Path | None, device: str | torch.device = "cpu", size: int = 0) -> Extractor:
    """An extractor by kind: classifier | torchscript | inception-tf | inception-clean | inception-pytorch.

    path: its weights; the Inception networks are also looked for in their libraries' caches.
    Raises MissingWeights where they are not on this machine.
    """
    if kind in ("classifier", "torchscript"):
        if path is None:
            raise DDError(f"an extractor of kind {kind} needs the path of its weights")
        return ClassifierExtractor(path, device) if kind == "classifier" else TorchScriptExtractor(path, size, device)
    networks: dict[str, Callable[..., Extractor]] = {
        "inception-tf": inception.TensorflowInception,
        "inception-clean": inception.CleanInception,
        "inception-pytorch": inception.PytorchInception,
    }
    if kind not in networks:
        raise DDError(f"no extractor of kind '{kind}'; there are classifier, torchscript, {', '.join(networks)}")
    return networks[kind](path, device)
