"""Progressive distillation: soft targets of a student of several passes, kept or computed, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dd.checkpoints import zoo
from dd.checkpoints.safe import save_tensors
from dd.distillation import stage
from dd.distillation.progressive import Source, start_from
from dd.distillation.task import Task
from dd.distillation.training import train
from dd.errors import DDError
from dd.models.registry import build_student, student_config
from dd.sampling.samplers import sample
from tests.helpers.tiny import Cycle, settings, tiny_pairs, tiny_student, tiny_teacher, write_params, write_project

OPTIONS = {"teacher_input": True, "noise_logits": True}
ZERO = torch.zeros(6, dtype=torch.int64)


def refined(teacher, family):
    """A student of two passes whose second one matters."""
    student = tiny_student(teacher, family, **OPTIONS, refinements=1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return student


def indexed(pairs):
    return replace(pairs, indices=torch.arange(len(pairs)))


def test_it_follows_the_sources_own_trajectory(teacher, family):
    source = Source(refined(teacher, family), teacher.codebook, "fp32")
    pairs = tiny_pairs(teacher, 6)
    own, _ = source.follow(pairs, ZERO)
    drawn = sample(source.student, teacher.codebook, pairs.noise, pairs.condition)
    assert torch.equal(teacher.codebook[own.tokens], drawn)
    own, targets = source.follow(pairs, ZERO + 2)
    assert torch.equal(teacher.codebook[own.tokens], drawn)  # the same trajectory at every point
    two = sample(source.student, teacher.codebook, pairs.noise, pairs.condition, (0, 2))
    begun = teacher.groups.starts[2]
    likeliest = targets.codes[:, begun:].gather(-1, targets.log_probs[:, begun:].argmax(-1, keepdim=True))[..., 0]
    assert torch.equal(teacher.codebook[likeliest.long()], two[:, begun:])


def test_kept_targets_are_the_computed_ones(teacher, family):
    pairs = indexed(tiny_pairs(teacher, 12))
    computed, kept = (Source(refined(teacher, family), teacher.codebook, "fp32") for _ in range(2))
    kept.keep((pairs.take(slice(start, start + 4)) for start in (8, 0, 4)), (0, 2))
    rows = replace(pairs.take(slice(3, 9)), tokens=torch.zeros_like(pairs.tokens[3:9]))
    points = torch.tensor([0, 2, 0, 2, 2, 0])
    (mine, targets), (theirs, expected) = kept.follow(rows, points), computed.follow(rows, points)
    assert torch.equal(mine.tokens, theirs.tokens)
    assert targets.log_probs.float().allclose(expected.log_probs.float(), atol=0.01)
    dense = [
        torch.zeros(6, mine.tokens.shape[1], 16).scatter_(-1, t.codes.long(), t.log_probs.float().exp())
        for t in (targets, expected)
    ]
    assert dense[0].allclose(dense[1], atol=2e-3)


def test_a_student_of_one_pass_comes_near_its_source(teacher, family, tmp_path):
    teacher_pairs = tiny_pairs(teacher, 32)
    held_out = teacher_pairs.take(slice(24, None))
    source = Source(refined(teacher, family), teacher.codebook, "fp32")
    student = build_student(family, student_config(teacher, **OPTIONS))
    start_from(student, source.student)
    config = settings(
        steps=40,
        lr=3e-3,
        source="refined",
        initialise="source",
        losses={"cross_entropy": 0.0, "soft": 1.0},
        log_every=1,
    )
    task = Task(teacher, Cycle(teacher_pairs.take(slice(24)), 4), held_out, tmp_path, follow=source.follow)
    curve = [value for _, value in train(student, task, config).curves["loss/soft"]]
    assert sum(curve[-5:]) < 0.8 * sum(curve[:5])


def test_weights_that_do_not_fit_are_refused(teacher, family):
    plain = build_student(family, student_config(teacher, teacher_input=True))
    with pytest.raises(DDError, match=r"initialise: source: the source has no noise_term\.\S+ of the student's shape"):
        start_from(build_student(family, student_config(teacher, **OPTIONS)), plain)


def register_source(root: Path, teacher_name: str = "tiny", family: str = "llamagen") -> None:
    teacher = tiny_teacher(family)
    student, file = refined(teacher, family), root / "zoo" / "tiny" / "student.safetensors"
    save_tensors(file, student.state_dict())
    sizes = json.loads(json.dumps(student_config(teacher, **OPTIONS, refinements=1)))
    more = {"family": family, "licence": "MIT", "source": "made in a test", "teacher": teacher_name, "config": sizes}
    zoo.register("refined", "student", file, **more)


SOURCE = {
    "source": "refined",
    "initialise": "source",
    "student": OPTIONS,
    "losses": {"cross_entropy": 0.0, "soft": 1.0},
}


@pytest.mark.parametrize("kept", [2**30, 0])
def test_the_stage(tmp_path, monkeypatch, family, kept):
    """Kept or computed, with the baseline trained as ever, and the source named in what is written."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setattr(stage, "KEPT_BYTES", kept)
    write_project(tmp_path, family, baseline={"steps": 2, "timesteps": (0, 2)}, **SOURCE)
    register_source(tmp_path, family=family)
    assert stage.main("toy").startswith("wrote models/toy: 12 steps")
    about = json.loads((tmp_path / "models" / "toy" / "student.json").read_text())
    assert about["provenance"]["source_sha256"] == zoo.entry("refined", "student").file.sha256
    assert about["config"]["refinements"] == 0


def test_sources_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    write_project(tmp_path, **SOURCE)
    monkeypatch.setattr(stage, "load_teacher_dir", lambda *_: pytest.fail("loaded a teacher"))
    with pytest.raises(DDError, match="refined"):
        stage.main("toy")
    zoo.register("other", "teacher", tmp_path / "zoo" / "tiny" / "transformer.safetensors", **zoo_fields(tmp_path))
    register_source(tmp_path, teacher_name="other")
    with pytest.raises(DDError, match=r"distill\.source: refined imitates other, the experiment's teacher is tiny"):
        stage.main("toy")
    write_params(tmp_path, losses={"soft": 1.0})
    with pytest.raises(DDError, match=r"losses\.soft and initialise: source need distill\.source"):
        stage.main("toy")
    assert not (tmp_path / "work").exists()


def zoo_fields(root: Path) -> dict:
    entry = zoo.entry("tiny", "teacher")
    return {name: getattr(entry, name) for name in ("family", "licence", "source", "tokenizer", "classes", "config")}
