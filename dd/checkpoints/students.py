"""Distilled students as files: a folder of student.safetensors and student.json, trained here or released."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from dd.checkpoints import zoo
from dd.checkpoints.safe import load_tensors, save_tensors
from dd.checkpoints.teachers import (
    RANDOM_BLOCKS,
    TeacherInfo,
    entry_shapes,
    frozen,
    load_strict,
    load_teacher_dir,
    read_info,
    read_weights,
    refuse_misfit,
    shapes_of,
    tensors_hash,
)
from dd.config import Family
from dd.errors import DDError
from dd.models.base import Student
from dd.models.registry import build_student, build_teacher, student_config
from dd.system.files import write_text


@dataclass(frozen=True)
class StudentInfo:
    """student.json: what a student is, which teacher it imitates, and how it was made (`provenance`)."""

    family: Family
    config: dict[str, Any]
    teacher: str
    teacher_sha256: str
    codebook_sha256: str
    sha256: str
    provenance: dict[str, Any] = field(default_factory=dict)


def save_student_dir(
    target: Path, student: Student, config: dict[str, Any], teacher_dir: Path | str, provenance: dict[str, Any]
) -> StudentInfo:
    """Write a trained student; `config` is what `dd.models.registry.build_student` takes."""
    return _write(Path(target), student.state_dict(), config, read_info(teacher_dir), provenance)


def materialise_student(name: str, target: Path, teacher_dir: Path | str, own: str | None = None) -> StudentInfo:
    """Fetch a released student (or take the user's own file) and write it like a trained one."""
    entry, teacher = zoo.entry(name, "student"), read_info(teacher_dir)
    if entry.teacher != teacher.name:
        raise DDError(
            f"student '{name}' imitates {entry.teacher}, the experiment's teacher is {teacher.name}: change one"
        )
    if RANDOM_BLOCKS in teacher.origin:
        return _rehearsed(target, teacher_dir)
    assert entry.family is not None
    check_geometry(build_student(entry.family, entry.config or {}, "meta"), teacher, name)
    path = zoo.weights_path(entry, own, "student")
    tensors = read_weights(entry, path)
    refuse_misfit(entry_shapes(name), shapes_of(tensors), path, name)
    tensors = {key: tensors.get(key, tensor) for key, tensor in _derived(entry).items()}
    provenance = {"released": name, "source": entry.source, "licence": entry.licence, "published": entry.published}
    return _write(Path(target), tensors, entry.config or {}, teacher, provenance)


def _rehearsed(target: Path, teacher_dir: Path | str) -> StudentInfo:
    """In a rehearsal a released student is one that starts from the random teacher: the authors' design, its depth."""
    teacher = load_teacher_dir(teacher_dir)
    sizes = student_config(teacher)
    student = build_student(read_info(teacher_dir).family, sizes)
    student.initialise_from(teacher)
    return save_student_dir(target, student, sizes, teacher_dir, {"rehearsal": True})


def check_geometry(student: Student, teacher: TeacherInfo, name: str) -> None:
    """Raise DDError for a student that gives tokens in other groups than the teacher."""
    sizes = (teacher.tokenizer_config, teacher.transformer_config)
    mine, wanted = student.groups, build_teacher(teacher.family, *sizes, "meta").groups
    if mine.sizes != wanted.sizes:
        raise DDError(
            f"student {name} gives {mine.length} tokens in {len(mine)} groups, teacher {teacher.name} "
            f"{wanted.length} in {len(wanted)}: distill again from this teacher, or name its own"
        )


def load_student_dir(path: Path | str, teacher_dir: Path | str, device: torch.device | str = "cpu") -> Student:
    """The student in a folder, in evaluation mode. Raises DDError if it was made from another teacher."""
    info, teacher = read_student_info(path), read_info(teacher_dir)
    if info.teacher_sha256 != teacher.sha256:
        raise DDError(
            f"the student in {path} imitates {info.teacher} ({info.teacher_sha256[:12]}...), the teacher in "
            f"{teacher_dir} is {teacher.name} ({teacher.sha256[:12]}...): distill again, or restore the teacher"
        )
    file = Path(path) / "student.safetensors"
    student = build_student(info.family, info.config)
    check_geometry(student, teacher, str(path))
    load_strict(student, load_tensors(file), file, f"student of {info.teacher}")
    return frozen(student).to(device)


def load_student(name: str, device: torch.device | str = "cpu") -> Student:
    """A student straight from the zoo."""
    entry = zoo.entry(name, "student")
    assert entry.family is not None
    path = zoo.local(entry.file)
    student = build_student(entry.family, entry.config or {})
    load_strict(student, read_weights(entry, path), path, name)
    return frozen(student).to(device)


def read_student_info(path: Path | str) -> StudentInfo:
    """student.json of a student's folder."""
    file = Path(path) / "student.json"
    try:
        return StudentInfo(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DDError(f"expected a student in {path}, student.json is missing: run its stage 'distill'") from None
    except (ValueError, TypeError) as error:
        raise DDError(f"{file} is damaged or of another version ({error}): run its stage 'distill' again") from None


def _derived(entry: zoo.Entry) -> dict[str, torch.Tensor]:
    """A student's own state: the buffers that a released file may lack are right, everything else is to be replaced."""
    assert entry.family is not None
    return build_student(entry.family, entry.config or {}).state_dict()


def _write(
    target: Path,
    tensors: dict[str, torch.Tensor],
    config: dict[str, Any],
    teacher: TeacherInfo,
    provenance: dict[str, Any],
) -> StudentInfo:
    config = json.loads(json.dumps(config))
    info = StudentInfo(
        family=teacher.family,
        config=config,
        teacher=teacher.name,
        teacher_sha256=teacher.sha256,
        codebook_sha256=teacher.codebook_sha256,
        sha256=tensors_hash(tensors, teacher.family, config),
        provenance=provenance,
    )
    target.mkdir(parents=True, exist_ok=True)
    save_tensors(target / "student.safetensors", tensors)
    write_text(target / "student.json", json.dumps(asdict(info), indent=1) + "\n")
    return info
