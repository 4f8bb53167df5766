"""Students as folders."""

import json
from dataclasses import asdict

import pytest
import torch

from dd.checkpoints import students, teachers
from dd.errors import DDError
from dd.models.registry import student_config
from tests.helpers.small.zoo import make_teacher


def test_student_folders(zoo_project):
    teacher_dir, folder = zoo_project / "teacher", zoo_project / "student"
    teachers.materialise("tiny", teacher_dir)
    info = students.materialise_student("tiny-dd", folder, teacher_dir)
    assert (info.teacher, info.provenance["released"]) == ("tiny", "tiny-dd")
    student = students.load_student_dir(folder, teacher_dir)
    direct = students.load_student("tiny-dd")
    x, finished, condition = torch.randn(2, 4, 4), torch.tensor([0, 1]), torch.tensor([0, 1])
    out, same = student(x, finished, condition), direct(x, finished, condition)
    torch.testing.assert_close(out.logits, same.logits)
    config = json.loads(json.dumps(student_config(make_teacher())))
    saved = students.save_student_dir(zoo_project / "again", student, config, teacher_dir, {"steps": 3})
    assert saved.sha256 == info.sha256
    assert asdict(students.read_student_info(zoo_project / "again"))["provenance"] == {"steps": 3}


def test_a_student_of_another_teacher_is_refused(zoo_project):
    teachers.materialise("tiny", zoo_project / "a")
    teachers.materialise("tiny-deep", zoo_project / "b")
    students.materialise_student("tiny-dd", zoo_project / "student", zoo_project / "a")
    with pytest.raises(DDError, match=r"imitates tiny \(.*is tiny-deep .*distill again"):
        students.load_student_dir(zoo_project / "student", zoo_project / "b")
    with pytest.raises(DDError, match=r"student 'tiny-dd' imitates tiny, the experiment's teacher is tiny-deep"):
        students.materialise_student("tiny-dd", zoo_project / "x", zoo_project / "b")
    with pytest.raises(DDError, match=r"student\.json is missing: run its stage 'distill'"):
        students.load_student_dir(zoo_project / "a", zoo_project / "a")


def test_a_student_of_another_geometry_is_refused(zoo_project):
    """Its teacher's entry was registered anew with another grid, say."""
    teachers.materialise("tiny", zoo_project / "a")
    students.materialise_student("tiny-dd", zoo_project / "student", zoo_project / "a")
    file = zoo_project / "student" / "student.json"
    info = json.loads(file.read_text())
    info["config"]["block_size"] = 9
    file.write_text(json.dumps(info))
    with pytest.raises(DDError, match=r"student .*student gives 9 tokens in 9 groups, teacher tiny 4 in 4: distill ag"):
        students.load_student_dir(zoo_project / "student", zoo_project / "a")
