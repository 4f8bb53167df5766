"""Typed `zoo/params.yaml` and `zoo/shipped/params.yaml`, and what every training script of the zoo shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PositiveInt, ValidationError, model_validator

from dd.config import Family
from dd.errors import DDError
from dd.sections import Section
from dd.system.entry import run_stage, stage_parser

HERE = Path(__file__).resolve().parent


class Dataset(Section):
    """Images, and how they are cut and split."""

    source: Literal["fashion-mnist", "folder"]
    licence: str = Field("not stated", description="of the images, and so of what is trained on them")
    folder: str | None = Field(None, description="fashion-mnist: where the idx files lie; folder: your class folders")
    test_folder: str | None = Field(None, description="your own test split; default: test_share of every class")
    test_share: float = Field(0.1, gt=0, lt=1)
    image_size: PositiveInt
    validation: int = Field(0, ge=0, description="training images that nothing trains on: `dd-cli select` needs some")
    crop: bool = True
    unreadable: Literal["refuse", "skip"] = "refuse"

    @model_validator(mode="after")
    def _check(self) -> Dataset:
        if self.source == "folder" and self.folder is None:
            raise ValueError("source 'folder' needs 'folder', the path of your class folders")
        return self

    def path(self) -> Path:
        """Where the images lie; a relative path starts at the project's folder."""
        return HERE.parent / Path(self.folder or "").expanduser()

    def test_path(self) -> Path | None:
        """Where test images of one's own lie."""
        return HERE.parent / Path(self.test_folder).expanduser() if self.test_folder else None


class SceneSettings(Section):
    """Captioned scenes from the photographs of a data set of single items (Fashion-MNIST)."""

    dataset: str = Field(description="whose photographs")
    extractor: str = Field(description="the classifier that leaves out photographs it is not sure of")
    train: PositiveInt
    test: PositiveInt
    photographs: PositiveInt = Field(description="of each item, at most")
    surely: float = Field(0.9, ge=0, lt=1)
    jitter: int = Field(0, ge=0, description="pixels that a thing may lie off its place, either way")
    seed: int = Field(0, ge=0)


class Training(Section):
    """Settings that every network of the zoo is trained by."""

    epochs: float | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0, description="instead of epochs")
    batch: PositiveInt
    lr: float = Field(gt=0)
    warmup: int = Field(100, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    muon_lr: float = Field(0.0, ge=0)
    ema: float = Field(0.999, ge=0, lt=1)
    flip: bool = Field(False, description="mirror half of the images")
    seed: int = Field(0, ge=0)
    checkpoint_minutes: float = Field(2.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Training:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("expected either epochs or steps")
        return self

    def count(self, images: int) -> int:
        """Steps for so many images. Raises DDError where there would be none."""
        if images < self.batch:
            raise DDError(
                f"batch: {self.batch} of {images} training images would train no step; set it to {max(1, images // 8)}"
            )
        return self.steps or int((self.epochs or 0) * (images // self.batch))


class Extractor(Section):
    """A small classifier whose features measure images."""

    dataset: str
    channels: tuple[PositiveInt, ...] = (32, 64, 128)
    blocks: tuple[int, ...] = (0, 1, 1)
    train: Training
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    shift: int = Field(2, ge=0, description="augmentation: each image moves by up to so many pixels")
    border: Literal["edge", "black"] = Field("edge", description="what moves in: the picture's own edge, or black")
    target: Literal["labels", "attributes", "rotations"] = Field(
        "labels",
        description="attributes: of scenes, a head for each fact; rotations: by how many quarters it is turned",
    )
    grid: PositiveInt = Field(1, description="features are pooled over grid x grid parts of the image")


class Reference(Section):
    """Statistics of a data set's test images, by the extractor of the reference's own name.

    The extractor was trained on that set or on a wider one.
    """

    dataset: str


class Validation(Section):
    """Statistics of a data set's validation images, by the extractor of the same name: what knobs are chosen on."""

    dataset: str


class TokenizerSettings(Section):
    """A tokenizer, the images that it is trained on, and the extractor of its perceptual loss."""

    dataset: str
    extractor: str
    family: Family
    config: dict[str, Any] = Field(description="the tokenizer's own configuration")
    train: Training
    commitment: float = Field(0.25, ge=0)
    pixel: float = Field(1.0, ge=0)
    squared: float = Field(0.0, ge=0, description="of squared pixel errors: small things on a plain background need it")
    perceptual: float = Field(1.0, ge=0)
    perceptual_warmup: int = Field(0, ge=0, description="steps until the perceptual term has its whole weight")
    data_start: bool = Field(False, description="LlamaGen with a shortcut: begin at principal components")
    continuous: int = Field(0, ge=0, description="LlamaGen: so many first steps without quantisation")
    replaced: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of codes that the decoder is given wrong in training (VAR: of the last scale)",
    )
    codebook_decay: float = Field(0.99, gt=0, lt=1, description="EMA k-means update of the codes")


class TeacherSettings(Section):
    """An autoregressive transformer over the tokens of a tokenizer."""

    tokenizer: str
    text_encoder: str | None = Field(None, description="of a text-to-image teacher: an encoder of dd.text.encoders")
    config: dict[str, Any] = Field(description="the transformer's own configuration")
    train: Training
    images: int = Field(0, ge=0, description="so many training images, the first ones; 0: all")
    measured: PositiveInt = Field(10_000, description="images of each split whose likelihood is reported")
    compile: bool = Field(False, description="torch.compile: faster after a minute or two, needs a C++ compiler")
    label_dropout: float = Field(0.1, ge=0, lt=1, description="share of conditions that are left out, for guidance")
    filters: dict[str, float] = Field({}, description="guidance and filters it is best sampled with")
    views: PositiveInt = Field(1, description="of each image that it learns: the further ones are moved a little")
    shift: int = Field(1, ge=0, description="pixels that the further views are moved by, at most")
    validate_every: int = Field(
        0, ge=0, description="steps; the weights of the lowest held-out nll are kept. 0: the last"
    )


class Zoo(Section):
    """The whole of zoo/params.yaml, by kind of network and by name."""

    datasets: dict[str, Dataset] = Field({})
    scenes: dict[str, SceneSettings] = Field({})
    extractors: dict[str, Extractor] = Field({})
    references: dict[str, Reference] = Field({})
    validations: dict[str, Validation] = Field({})
    tokenizers: dict[str, TokenizerSettings] = Field({})
    teachers: dict[str, TeacherSettings] = Field({})

    @model_validator(mode="after")
    def _check(self) -> Zoo:
        for name, reference in self.references.items():
            if name not in self.extractors or reference.dataset not in {**self.datasets, **self.scenes}:
                raise ValueError(
                    f"references.{name}: expected an extractor '{name}' and a data set {reference.dataset}"
                )
        for name, validation in self.validations.items():
            dataset = self.datasets.get(validation.dataset)
            if name not in self.references or dataset is None or not dataset.validation:
                raise ValueError(
                    f"validations.{name}: expected a reference '{name}', and a data set with a validation split"
                )
        return self


def load_settings(*paths: Path) -> Zoo:
    """Read and check what ships and what is yours, as one; or the given files. Raises DDError."""
    merged: dict[str, dict[str, Any]] = {}
    for path in paths or (HERE / "shipped" / "params.yaml", HERE / "params.yaml"):
        for group, entries in _read(path).items():
            known = merged.setdefault(group, {})
            if twice := [name for name in entries or {} if name in known]:
                raise DDError(f"zoo/params.yaml: {group}.{twice[0]}: that name ships with the zoo; choose another")
            known.update(entries or {})
    try:
        return Zoo.model_validate(merged)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors())
        raise DDError(f"zoo/params.yaml: {faults}") from None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise DDError(f"{path.name}: not valid YAML ({' '.join(str(error).split())})") from None


def pick(group: dict[str, Any], kind: str, name: str) -> Any:
    """One entry of a group, or DDError that lists the names."""
    if name not in group:
        raise DDError(f"no {kind} '{name}' in zoo/params.yaml; there are {', '.join(sorted(group))}")
    return group[name]


def run_zoo(main: Callable[[str], str], doc: str | None) -> None:
    """Command line of a training script: one name of zoo/params.yaml."""
    run_stage(lambda arguments: main(arguments.name), stage_parser(doc, "entry of zoo/params.yaml"))
