"""Ship a distilled student: `python -m zoo.student EXPERIMENT` copies models/<experiment>/ to zoo/<experiment>/.

It becomes the entry `<experiment>-dd` of zoo/index.yaml, which `dd.load` and `dd-cli sample` use until somebody trains
their own.
"""

from __future__ import annotations

import shutil

from dd import zoo
from dd.config import project_root
from dd.errors import DDError
from dd.files import atomic_path
from dd.students import read_student_info
from zoo.settings import HERE, run_stage


def main(name: str) -> str:
    source = project_root() / "models" / name
    info = read_student_info(source)
    teacher = zoo.entry(info.teacher, "teacher")
    if not teacher.shipped:
        raise DDError(f"{name}: expected a student of a teacher that ships, '{info.teacher}' is on the hub")
    target = HERE / name / "student.safetensors"
    with atomic_path(target) as scratch:
        shutil.copy(source / "student.safetensors", scratch)
    entry = zoo.register(
        f"{name}-dd",
        "student",
        target,
        family=info.family,
        about=f"Distilled Decoding student of {info.teacher}, experiment {name}",
        config=info.config,
        teacher=info.teacher,
        classes=teacher.classes,
        licence="MIT",
        source=f"trained by this project: `dvc repro distill@{name}`",
        provenance=info.provenance,
    )
    return f"wrote zoo/{name}/student.safetensors: entry {entry.name}, {(entry.file.size or 0) / 1e6:.1f} MB"


if __name__ == "__main__":
    run_stage(main, __doc__)
