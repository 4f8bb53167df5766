"""A small random classifier as extractor, pictures whose brightness says their class, and a reference of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dd.evaluation.measure import Evaluation, open_evaluation
from dd.metrics import distances
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.moments import Gaussian, Moments
from dd.metrics.protocols import protocol
from dd.metrics.references import Reference, build_reference

N, CLASSES, SIZE = 240, 4, 8
TOY = protocol("fd-toy")


def pictures(count: int, seed: int = 0, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Images whose brightness says their class, and the classes, in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    base = (labels * 50)[:, None, None, None]
    noise = torch.randint(0, 80, (count, channels, SIZE, SIZE), generator=generator)
    return (base + noise).to(torch.uint8), labels


def batches(images: Tensor, labels: Tensor | None, size: int = 50):
    for start in range(0, len(images), size):
        yield images[start : start + size], None if labels is None else labels[start : start + size]


@pytest.fixture
def few_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "KID_SUBSETS", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("toy")
    model = SmallClassifier(ClassifierConfig(CLASSES, SIZE, (4, 6), (0, 1)))
    model.calibrate(pictures(64)[0].float() / 127.5 - 1)
    model.save(path / "extractor.safetensors")
    return path


@pytest.fixture(scope="module")
def extractor(folder: Path) -> ClassifierExtractor:
    return ClassifierExtractor(folder / "extractor.safetensors")


@pytest.fixture(scope="module")
def reference(folder: Path, extractor: ClassifierExtractor) -> Reference:
    images, labels = pictures(N, seed=1)
    return build_reference(folder / "reference.safetensors", TOY.name, extractor, images.split(64), labels, "test")


@pytest.fixture
def evaluation(extractor: ClassifierExtractor, reference: Reference, tmp_path: Path) -> Evaluation:
    return open_evaluation(TOY, N, tmp_path, extractor=extractor, reference=reference.path)


def gaussian(x: NDArray) -> Gaussian:
    return Gaussian(len(x), x.mean(0), np.cov(x, rowvar=False))


def streamed(x: NDArray, batch: int = 37, **kwargs: int) -> Moments:
    moments = Moments(x.shape[1], len(x), **kwargs)
    for start in range(0, len(x), batch):
        moments.add(x[start : start + batch])
    return moments
