"""Enter trained networks of the zoo into zoo/index.yaml, with sizes, SHA-256, licence and provenance.

`python -m zoo.register NAME` takes an entry of zoo/params.yaml: an extractor, or a teacher (with its tokenizer).
"""

from __future__ import annotations

from typing import Any

from dd import zoo
from dd.data import load_images
from dd.errors import DDError
from dd.safeload import read_metadata
from zoo.settings import HERE, TeacherSettings, Zoo, load_settings, run_stage

LICENCE = "MIT"
SOURCE = "trained by this project from Fashion-MNIST (Zalando, MIT): `dvc repro zoo/dvc.yaml`"
OWN_SOURCE = "trained from your own images: `dvc repro zoo/dvc.yaml`"


def register_extractor(settings: Zoo, name: str) -> list[str]:
    """The extractor, and the reference made with it if there is one."""
    source = _source(settings, settings.extractors[name].dataset)
    weights = HERE / name / "extractor.safetensors"
    common: dict[str, Any] = {"licence": LICENCE, "source": source}
    zoo.register(f"{name}-extractor", "extractor", weights, companions=(weights.with_suffix(".json"),), **common)
    done = [f"{name}-extractor"]
    if (reference := HERE / name / "reference.safetensors").is_file():
        zoo.register(f"{name}-reference", "reference", reference, **common)
        done.append(f"{name}-reference")
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
        classes=classes,
        filters=teacher.filters,
        provenance=about,
        **common,
    )
    return [codes, name]


def _source(settings: Zoo, dataset: str) -> str:
    return SOURCE if settings.datasets[dataset].source == "fashion-mnist" else OWN_SOURCE


def main(name: str) -> str:
    settings = load_settings()
    done = []
    if name in settings.extractors:
        done += register_extractor(settings, name)
    if name in settings.teachers:
        done += register_teacher(settings, name)
    if not done:
        raise DDError(f"no extractor or teacher '{name}' in zoo/params.yaml")
    return f"registered {', '.join(done)}"


if __name__ == "__main__":
    run_stage(main, __doc__)
