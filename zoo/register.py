"""Enter trained networks of the zoo into zoo/index.yaml, with sizes, SHA-256, licence and provenance.

`python -m zoo.register NAME` takes an entry of zoo/params.yaml: an extractor, or a teacher (with its tokenizer).
"""

from __future__ import annotations

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
    common = {"licence": LICENCE, "source": source}
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
    files = {
        f"{teacher.tokenizer}-tokenizer": HERE / teacher.tokenizer / "tokenizer.safetensors",
        name: HERE / name / "teacher.safetensors",
    }
    for entry, path in files.items():
        role = {} if entry == name else {"kind": "tokenizer", "config": tokenizer.config}
        if entry == name:
            role = {
                "kind": "teacher",
                "config": teacher.config,
                "tokenizer": f"{teacher.tokenizer}-tokenizer",
                "classes": load_images(HERE / "data" / tokenizer.dataset / "test").classes,
                "filters": teacher.filters,
            }
        kind = role.pop("kind")
        provenance = {"settings": f"zoo/params.yaml, {kind}s.{name}", **read_metadata(path)}
        zoo.register(
            entry, kind, path, family=tokenizer.family, licence=LICENCE, source=source, provenance=provenance, **role
        )
    return list(files)


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
