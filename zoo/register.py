"""Enter trained networks of the zoo into zoo/index.yaml, with sizes, SHA-256, licence and provenance.

`python -m zoo.register NAME` takes an entry of zoo/params.yaml, an extractor or a teacher (with its tokenizer), or an
experiment whose student is to ship: models/NAME/ becomes the entry NAME-dd.
"""

from __future__ import annotations

import shutil
from typing import Any

from dd.checkpoints import zoo
from dd.checkpoints.safe import read_metadata
from dd.checkpoints.students import read_student_info
from dd.config import project_root
from dd.datasets.packed import load_images
from dd.errors import DDError
from dd.system.files import atomic_path
from zoo.settings import HERE, TeacherSettings, Zoo, load_settings, run_zoo

LICENCE = "MIT"
SOURCE = "trained by this project from Fashion-MNIST (Zalando, MIT): `dvc repro zoo/dvc.yaml`"
OWN_SOURCE = "trained from your own images: `dvc repro zoo/dvc.yaml`"


def register_extractor(settings: Zoo, name: str) -> list[str]:
    """The extractor, and the references made with it."""
    source = _source(settings, settings.extractors[name].dataset)
    weights = HERE / name / "extractor.safetensors"
    common: dict[str, Any] = {"licence": LICENCE, "source": source}
    zoo.register(f"{name}-extractor", "extractor", weights, companions=(weights.with_suffix(".json"),), **common)
    done = [f"{name}-extractor"]
    for kind in ("reference", "validation"):
        if (file := HERE / name / f"{kind}.safetensors").is_file():
            zoo.register(f"{name}-{kind}", "reference", file, **common)
            done.append(f"{name}-{kind}")
    return done


def register_teacher(settings: Zoo, name: str) -> list[str]:
    """The teacher and its tokenizer."""
    teacher: TeacherSettings = settings.teachers[name]
    tokenizer = settings.tokenizers[teacher.tokenizer]
    source = _source(settings, tokenizer.dataset)
    common: dict[str, Any] = {"family": tokenizer.family, "licence": LICENCE, "source": source}
    codes = f"{teacher.tokenizer}-tokenizer"
    weights = HERE / teacher.tokenizer / "tokenizer.safetensors"
    about = {"settings": f"zoo/params.yaml, tokenizers.{teacher.tokenizer}", **read_metadata(weights)}
    zoo.register(codes, "tokenizer", weights, config=tokenizer.config, provenance=about, **common)
    weights = HERE / name / "teacher.safetensors"
    about = {"settings": f"zoo/params.yaml, teachers.{name}", **read_metadata(weights)}
    classes = load_images(HERE / "data" / tokenizer.dataset / "test").classes
    zoo.register(
        name,
        "teacher",
        weights,
        config=teacher.config,
        tokenizer=codes,
        classes=() if teacher.text_encoder else classes,
        text_encoder=teacher.text_encoder,
        filters=teacher.filters,
        provenance=about,
        **common,
    )
    return [codes, name]


def register_student(name: str) -> list[str]:
    """The student that the experiment `name` trained, as `name`-dd."""
    made = read_student_info(project_root() / "models" / name)
    target = HERE / name / "student.safetensors"
    with atomic_path(target) as scratch:
        shutil.copyfile(project_root() / "models" / name / "student.safetensors", scratch)
    zoo.register(
        f"{name}-dd",
        "student",
        target,
        family=made.family,
        config=made.config,
        teacher=made.teacher,
        licence=LICENCE,
        source=f"`dvc repro distill@{name}`",
        provenance=made.provenance,
    )
    return [f"{name}-dd"]


def _source(settings: Zoo, dataset: str) -> str:
    photographs = settings.scenes[dataset].dataset if dataset in settings.scenes else dataset
    return SOURCE if settings.datasets[photographs].source == "fashion-mnist" else OWN_SOURCE


def main(name: str) -> str:
    settings = load_settings()
    done = []
    if name in settings.extractors:
        done += register_extractor(settings, name)
    if name in settings.teachers:
        done += register_teacher(settings, name)
    if (project_root() / "models" / name / "student.json").is_file():
        done += register_student(name)
    if not done:
        raise DDError(f"no extractor, teacher or trained student '{name}' in zoo/params.yaml")
    return f"registered {', '.join(done)}"


if __name__ == "__main__":
    run_zoo(main, __doc__)
