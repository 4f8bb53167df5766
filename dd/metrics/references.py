"""References: the statistics of real images that samples are compared with, and how they were made."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dd.checkpoints.safe import load_tensors, read_metadata, save_tensors, sha256_file
from dd.errors import DDError
from dd.metrics.extractors import open_extractor
from dd.metrics.features import Extractor
from dd.metrics.images import RgbBatches, image_files, load_npz, read_images
from dd.metrics.moments import ClassSpread, Gaussian, Moments
from dd.metrics.protocols import Protocol, protocol
from dd.system.device import DeviceName, choose_device
from dd.system.progress import progress

log = logging.getLogger(__name__)
KIND = "dd-reference"
# numpy's own way of rebuilding an array of numbers; the statistics of DD's authors may be numpy arrays in a torch file
_NUMPY_DATA: list[Any] = [
    getattr(np, "_core").multiarray._reconstruct,  # noqa: B009
    np.ndarray,
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
]


@dataclass(frozen=True)
class Reference:
    """Moments (and, where known, features) of real images.

    features (M, F) float32 with labels (M,) int64: for kernel distance, precision and recall; spatial: moments of
    sFID; within_class_variance: what `diversity` is measured against.
    """

    path: Path
    sha256: str
    gaussian: Gaussian
    features: Tensor | None = None
    labels: Tensor | None = None
    spatial: Gaussian | None = None
    within_class_variance: float | None = None
    classes: int = 0


def build_reference(
    path: Path,
    protocol: str,
    extractor: Extractor,
    images: Iterable[Tensor],
    labels: Tensor,
    source: str,
    keep: int = 10_000,
    classes: int = 0,
) -> Reference:
    """Measure real images and write the reference.

    images: batches (B, 3, H, W) uint8; labels (N,) int64, in the same order; keep: features to store (as float16);
    classes: how many there are, should the images not show all of them.
    """
    count, classes = len(labels), max(classes, int(labels.max()) + 1)
    check = RgbBatches(extractor.image_size)
    moments = Moments(extractor.feature_width, count)
    spread = ClassSpread(extractor.feature_width, classes, count)
    kept: list[Tensor] = []
    seen = 0
    for batch in images:
        features = extractor(check(batch)).features
        moments.add(features.numpy())
        spread.add(features.numpy(), labels[seen : seen + len(features)].numpy())
        if seen < keep:
            kept.append(features[: keep - seen].half())
        seen += len(features)
    if seen != count:
        raise DDError(f"expected {count} images for the reference (one for each label), got {seen}")
    gaussian, variance = moments.gaussian(), spread.estimate()
    tensors = {
        "mu": torch.from_numpy(gaussian.mean),
        "sigma": torch.from_numpy(gaussian.covariance),
        "features": torch.cat(kept),
        "labels": labels[:keep].to(torch.int32),
    }
    metadata = {
        "kind": KIND,
        "protocol": protocol,
        "extractor": extractor.name,
        "weights_sha256": extractor.weights_sha256,
        "preprocessing": extractor.preprocessing,
        "image_size": check.size,
        "images": count,
        "classes": classes,
        "within_class_variance": variance.value if variance else None,
        "source": source,
    }
    save_tensors(path, tensors, metadata)
    return _from_tensors(path, tensors, metadata)


def reference_of_folder(
    path: Path, name: str, folder: Path, source: str, weights: Path | None = None, device: str = "auto"
) -> Reference:
    """The reference of protocol `name` from a folder of images, whose folders are classes (one class without any).

    The images are taken in an order that mixes the classes. Raises DDError before the first one for a bad protocol, a
    network that is not there, images of several sizes, or a file that cannot be written.
    """
    if path.suffix != ".safetensors":
        raise DDError(f"expected a reference that ends in .safetensors, got {path}: name it so")
    chosen, files = protocol(name), image_files(folder)
    if device not in ("auto", "cpu", "cuda"):
        raise DDError(f"device: expected auto, cpu or cuda, got {device}")
    place = choose_device(cast(DeviceName, device), "reference build")
    extractor = open_extractor(chosen.extractor, chosen.extractor_path(weights), place)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise DDError(f"no permission to write {path}: make {path.parent} writable or choose another folder")
    classes = {parent: number for number, parent in enumerate(sorted({file.parent for file in files}))}
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    labels = torch.tensor([classes[file.parent] for file in files])
    batches = progress(read_images(files), unit="batches", label="reference")
    return build_reference(path, name, extractor, batches, labels, source)


def load_reference(path: Path, protocol: Protocol, extractor: Extractor) -> Reference:
    """Open a reference and refuse one that was made otherwise than `protocol` and `extractor` say.

    Formats: our safetensors (any protocol), ADM's npz (adm only), DD's statistic.pth (dd only).
    """
    if not path.is_file():
        raise DDError(f"no reference for protocol {protocol.name} at {path}: {protocol.how_to_get} and place it there")
    if path.suffix == ".safetensors":
        metadata = read_metadata(path)
        _check_made_alike(path, metadata, protocol, extractor)
        reference = _from_tensors(path, load_tensors(path), metadata)
    elif path.suffix == ".npz" and protocol.name == "adm":
        reference = _from_adm(path, protocol, extractor)
    elif path.suffix in (".pth", ".pt") and protocol.name == "dd":
        reference = _from_statistic(path)
    else:
        raise DDError(
            f"{path} says nothing about the extractor it was made by: expected a .safetensors reference of protocol "
            f"{protocol.name}, {protocol.how_to_get}"
        )
    width = len(reference.gaussian.mean)
    if width != extractor.feature_width:
        raise DDError(
            f"{path} holds statistics of {width} features, extractor {extractor.name} gives {extractor.feature_width}: "
            "use the reference of this extractor"
        )
    if not np.isfinite(reference.gaussian.covariance).all() or not np.isfinite(reference.gaussian.mean).all():
        raise DDError(f"{path} holds NaN or infinite statistics: make or fetch it again")
    return reference


def _check_made_alike(path: Path, found: dict[str, Any], protocol: Protocol, extractor: Extractor) -> None:
    if found.get("kind") != KIND:
        raise DDError(f"{path} is no reference of this program: make one with `dvc repro zoo/dvc.yaml`")
    expected = {
        "protocol": protocol.name,
        "preprocessing": extractor.preprocessing,
        "weights_sha256": extractor.weights_sha256,
    }
    for key, value in expected.items():
        if found.get(key) != value:
            raise DDError(
                f"{path} was made with {key} {_short(found.get(key))}, expected {_short(value)}: "
                "use the reference of this extractor, or make it again"
            )
    if extractor.image_size and found.get("image_size") != extractor.image_size:
        raise DDError(
            f"{path} was made from images of {found.get('image_size')} pixels, expected {extractor.image_size}: "
            "use the reference of this extractor, or make it again"
        )


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else f"'{text}'"


def _from_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Reference:
    try:
        gaussian = Gaussian(int(metadata["images"]), tensors["mu"].double().numpy(), tensors["sigma"].double().numpy())
    except KeyError as error:
        raise DDError(f"{path} is no complete reference ({error} is missing): make it again") from error
    labels = tensors.get("labels")
    features = tensors.get("features")
    return Reference(
        path,
        sha256_file(path),
        gaussian,
        None if features is None else features.float(),
        None if labels is None else labels.long(),
        within_class_variance=metadata.get("within_class_variance"),
        classes=int(metadata.get("classes", 0)),
    )


def _from_adm(path: Path, protocol: Protocol, extractor: Extractor) -> Reference:
    """ADM's npz: mu, sigma (pool_3), mu_s, sigma_s (spatial) of the training set, arr_0: 10,000 images."""
    arrays = load_npz(path)
    missing = [key for key in ("mu", "sigma") if key not in arrays]
    if missing:
        raise DDError(f"{path} lacks {' and '.join(missing)}: expected ADM's reference, {protocol.how_to_get}")
    spatial = None
    if "mu_s" in arrays and "sigma_s" in arrays:
        spatial = Gaussian(0, arrays["mu_s"].astype(np.float64), arrays["sigma_s"].astype(np.float64))
    digest = sha256_file(path)
    features = None
    if "arr_0" in arrays:
        features = _adm_features(path, digest, arrays["arr_0"][: protocol.neighbours], extractor)
    gaussian = Gaussian(0, arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64))
    return Reference(path, digest, gaussian, features, spatial=spatial, classes=1000)


def _adm_features(path: Path, digest: str, images: np.ndarray, extractor: Extractor, batch: int = 64) -> Tensor:
    """Features of the npz's images, computed once and kept beside it."""
    cache = path.with_name(f".{path.stem}.{digest[:8]}-{extractor.weights_sha256[:8]}.safetensors")
    if cache.is_file():
        return load_tensors(cache)["features"]
    log.info("features of %d reference images (once)", len(images))
    parts = [
        extractor(torch.from_numpy(np.ascontiguousarray(images[i : i + batch])).permute(0, 3, 1, 2)).features
        for i in range(0, len(images), batch)
    ]
    features = torch.cat(parts)
    try:
        save_tensors(cache, {"features": features})
    except DDError as error:  # a read-only folder costs time at the next run, nothing else
        log.warning("the features could not be kept: %s", error)
    return features


def _from_statistic(path: Path) -> Reference:
    """DD's statistic.pth: {"m": (2048,), "s": (2048, 2048)}."""
    try:
        with torch.serialization.safe_globals(_NUMPY_DATA):
            content = torch.load(path, map_location="cpu", weights_only=True)
        mean, covariance = (np.asarray(content[key], dtype=np.float64) for key in ("m", "s"))
    except Exception as error:  # truncated, foreign, or with code: nothing of it was executed
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DDError(f"{path} is no statistics file with m and s ({reason}): fetch it again") from error
    return Reference(path, sha256_file(path), Gaussian(0, mean, covariance), classes=1000)
