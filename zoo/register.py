"""Enter trained networks of the zoo into zoo/index.yaml, with sizes, SHA-256, licence and provenance.

`python -m zoo.register NAME` takes a data set of zoo/params.yaml with all that was trained on it, a single extractor or
teacher (with its tokenizer), or an experiment whose student is to ship: models/NAME/ becomes the entry NAME-dd,
and so does models/NAME-long/.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dd.checkpoints import zoo
from dd.checkpoints.safe import read_metadata
from dd.checkpoints.students import read_student_info
from dd.config import project_root
from dd.datasets.packed import load_images
from dd.errors import DDError
from dd.system.files import atomic_path
from zoo.settings import HERE, Zoo, load_settings, run_zoo

SOURCE = "trained by this project from Fashion-MNIST (Zalando, MIT): `dvc repro zoo/shipped/dvc.yaml`"
OWN_SOURCE = "trained on your own images: `dvc repro zoo/dvc.yaml`"


def register_extractor(settings: Zoo, name: str) -> list[str]:
    """The extractor, and the references made with it."""
    common = _origin(settings, settings.extractors[name].dataset)
    weights = _trained(HERE / name / "extractor.safetensors")
    zoo.register(f"{name}-extractor", "extractor", weights, companions=(weights.with_suffix(".json"),), **common)
    done = [f"{name}-extractor"]
    for kind in ("reference", "validation"):
        if (file := HERE / name / f"{kind}.safetensors").is_file():
            zoo.register(f"{name}-{kind}", "reference", file, **common)
            done.append(f"{name}-{kind}")
    return done


def register_teacher(settings: Zoo, name: str) -> list[str]:
    """The teacher and its tokenizer, with the sizes that they were trained with, whatever zoo/params.yaml says now."""
    teacher = settings.teachers[name]
    tokenizer = settings.tokenizers[teacher.tokenizer]
    common = _origin(settings, tokenizer.dataset)
    codes = f"{teacher.tokenizer}-tokenizer"
    weights = _trained(HERE / teacher.tokenizer / "tokenizer.safetensors")
    about = read_metadata(weights)
    common["family"] = about.pop("family", tokenizer.family)
    config = about.pop("config", tokenizer.config)
    zoo.register(codes, "tokenizer", weights, config=config, provenance=about, **common)
    weights = _trained(HERE / name / "teacher.safetensors")
    about = read_metadata(weights)
    encoder = about.pop("text_encoder", teacher.text_encoder)
    config = about.pop("config", teacher.config)
    classes = load_images(HERE / "data" / tokenizer.dataset / "test").classes
    zoo.register(
        name,
        "teacher",
        weights,
        config=config,
        tokenizer=codes,
        classes=() if encoder else classes,
        text_encoder=encoder,
        filters=teacher.filters,
        provenance=about,
        **common,
    )
    return [codes, name]


def register_student(name: str) -> list[str]:
    """The student that the experiment `name` trained, as `name`-dd; of `name`-long, the longer training, too."""
    made, shipped = read_student_info(project_root() / "models" / name), name.removesuffix("-long")
    target = HERE / shipped / "student.safetensors"
    with atomic_path(target) as scratch:
        shutil.copyfile(project_root() / "models" / name / "student.safetensors", scratch)
    zoo.register(
        f"{shipped}-dd",
        "student",
        target,
        family=made.family,
        config=made.config,
        teacher=made.teacher,
        licence=zoo.entry(made.teacher, "teacher").licence,
        source=f"`dvc repro distill@{name}`",
        provenance=made.provenance,
    )
    return [f"{shipped}-dd"]


def register_dataset(settings: Zoo, name: str) -> list[str]:
    """Every extractor and teacher that was trained on a data set."""
    done = []
    for extractor, about in settings.extractors.items():
        if about.dataset == name:
            done += register_extractor(settings, extractor)
    for teacher, made in settings.teachers.items():
        if settings.tokenizers[made.tokenizer].dataset == name:
            done += register_teacher(settings, teacher)
    return done


def _trained(path: Path) -> Path:
    if not path.is_file():
        raise DDError(f"zoo/{path.relative_to(HERE).as_posix()} is not there: train it with `dvc repro zoo/dvc.yaml`")
    return path


def _origin(settings: Zoo, dataset: str) -> dict[str, Any]:
    """Licence and source of what is trained on a data set, and how large its files may be."""
    photographs = settings.scenes[dataset].dataset if dataset in settings.scenes else dataset
    about = settings.datasets[photographs]
    shipped = about.source == "fashion-mnist"
    most = {} if shipped else {"largest": None}
    return {"licence": about.licence, "source": SOURCE if shipped else OWN_SOURCE, **most}


def main(name: str) -> str:
    """Enter the networks of a name into the index. Returns a line for the log."""
    settings = load_settings()
    done = []
    student = (project_root() / "models" / name / "student.json").is_file()
    if name in settings.datasets and settings.datasets[name].source == "folder":
        done += register_dataset(settings, name)
        student = False  # the experiment of that name keeps it
    else:
        done += register_extractor(settings, name) if name in settings.extractors else []
        done += register_teacher(settings, name) if name in settings.teachers else []
    if student:
        done += register_student(name)
    if not done:
        raise DDError(f"no data set, extractor, teacher or trained student '{name}' in zoo/params.yaml")
    return f"registered {', '.join(done)}"


if __name__ == "__main__":
    run_zoo(main, __doc__)
