"""Protocols: what a number's name promises about how it was measured.

| name | metric | extractor | images | reference |
|---|---|---|---|---|
| adm | FID | TensorFlow Inception (torch-fidelity) | 50,000, 50 per class | OpenAI's VIRTUAL_imagenet256_labeled.npz |
| dd | FID-dd | pytorch-fid's Inception | 50,000, random classes | statistic.pth of DD's authors |
| clean | FID-clean | clean-fid's Inception and resize | 50,000, 50 per class | made from ImageNet's images |
| fd-NAME | FD-NAME | zoo/NAME/extractor.safetensors | 10,000, balanced | zoo/NAME/reference.safetensors |
| fd-NAME-validation | FD-NAME-validation | the same | 5,000, balanced | zoo/NAME/validation.safetensors |

The last one is what `dd-cli select` chooses on: images that are not in the reference which the table is measured by.

Their numbers differ for the same images (VAR-d16 reads 3.55 under adm and 4.19 under dd), so their names do. Another
number of images biases the distance and makes another name again: "FD-fashion, N=2k".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dd.config import project_root
from dd.errors import DDError

VALIDATION = "-validation"
IMAGENET_REFERENCE = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/"


@dataclass(frozen=True)
class Protocol:
    """How a metric is measured.

    extractor: kind (`dd.metrics.extractors.open_extractor`); images: N that the metric's plain name stands for;
    neighbours: images that precision, recall and paired distances use; labels: how classes are chosen;
    extractor_file, reference_file: where they lie by default, under the project's root.
    """

    name: str
    metric: str
    extractor: str
    images: int
    neighbours: int
    labels: Literal["balanced", "random"]
    image_size: int | None
    extractor_file: str | None
    reference_file: str
    how_to_get: str
    spatial: bool = False

    def metric_name(self, images: int) -> str:
        """The metric's name for N images: plain only for the protocol's own N."""
        if images == self.images:
            return self.metric
        count = f"{images // 1000}k" if images % 1000 == 0 and images else str(images)
        plain = f"FD-{self.name}" if self.metric == "FID" else self.metric
        return f"{plain}, N={count}"

    def reference_path(self, given: str | Path | None = None) -> Path:
        """The reference's file: the given one, or the protocol's own."""
        return Path(given) if given else project_root() / self.reference_file

    def extractor_path(self, given: str | Path | None = None) -> Path | None:
        """The extractor's weights: the given ones, the protocol's own, or None (a library's cache)."""
        if given:
            return Path(given)
        return project_root() / self.extractor_file if self.extractor_file else None


ADM = Protocol(
    name="adm",
    metric="FID",
    extractor="inception-tf",
    images=50_000,
    neighbours=10_000,
    labels="balanced",
    image_size=256,
    extractor_file=None,
    reference_file="references/VIRTUAL_imagenet256_labeled.npz",
    how_to_get=f"fetch {IMAGENET_REFERENCE}VIRTUAL_imagenet256_labeled.npz",
    spatial=True,
)

DD = replace(
    ADM,
    name="dd",
    metric="FID-dd",
    extractor="inception-pytorch",
    labels="random",
    reference_file="references/statistic.pth",
    how_to_get="fetch ImageNet-256_FID_Statistic/statistic.pth of microsoft/distilled_decoding (Hugging Face hub)",
    spatial=False,
)

CLEAN = replace(
    ADM,
    name="clean",
    metric="FID-clean",
    extractor="inception-clean",
    reference_file="references/clean.safetensors",
    how_to_get="make it with `dd-cli reference build clean IMAGENET_FOLDER --out references/clean.safetensors`",
    spatial=False,
)


def dataset_protocol(dataset: str) -> Protocol:
    """fd-<dataset>: the data set's own classifier and test images."""
    return Protocol(
        name=f"fd-{dataset}",
        metric=f"FD-{dataset}",
        extractor="classifier",
        images=10_000,
        neighbours=5_000,
        labels="balanced",
        image_size=None,  # the classifier's
        extractor_file=f"zoo/{dataset}/extractor.safetensors",
        reference_file=f"zoo/{dataset}/reference.safetensors",
        how_to_get="make it with `dvc repro zoo/dvc.yaml`",
    )


def validation_protocol(dataset: str) -> Protocol:
    """fd-<dataset>-validation: the same classifier, and images that the reference of fd-<dataset> does not hold."""
    return replace(
        dataset_protocol(dataset),
        name=f"fd-{dataset}{VALIDATION}",
        metric=f"FD-{dataset}{VALIDATION}",
        images=5_000,
        reference_file=f"zoo/{dataset}/validation.safetensors",
    )


def protocol(name: str) -> Protocol:
    """A protocol by name. Raises DDError for an unknown one."""
    known = {p.name: p for p in (ADM, DD, CLEAN)}
    if name in known:
        return known[name]
    if name.startswith("fd-") and name[3:].replace("-", "").replace("_", "").isalnum():
        dataset = name[3:].removesuffix(VALIDATION)
        return validation_protocol(dataset) if name.endswith(VALIDATION) else dataset_protocol(dataset)
    raise DDError(f"no protocol '{name}': expected adm, dd, clean or fd-<dataset> (for example fd-fashion)")
