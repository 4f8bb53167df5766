"""Janus's student."""

import pytest
import torch

from dd.distillation.memory import checkpoint_blocks
from dd.models.janus.student import JanusStudent, JanusStudentConfig
from tests.parity.janus import (
    LENGTHS,
    SIDE,
    SIZES,
    C,
    V,
    prompts,
    random_tokens,
)


def make_student(teacher, **options):
    torch.manual_seed(1)
    student = JanusStudent(JanusStudentConfig(**SIZES, **options))
    student.initialise_from(teacher)
    return student


OPTIONS = {
    "plain": {},
    "teacher_input": {"teacher_input": True},
    "all": {"teacher_input": True, "noise_logits": True, "flow_steps": 3, "refinements": 2, "noise_guess": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_student_learns_from_padded_prompts(teacher, options):
    student, condition = make_student(teacher, **options), prompts()
    x = torch.randn(len(LENGTHS), SIDE**2, C, generator=torch.Generator().manual_seed(6))
    output = student(x, torch.tensor([0, 5, 16]), condition)
    assert output.logits.shape == (3, SIDE**2, V)
    assert output.codes.shape == (3, SIDE**2, C)
    (output.logits.square().mean() + output.codes.square().mean()).backward()
    learning = {name: p for name, p in student.named_parameters() if p.requires_grad}
    assert "language_model.embed_tokens.weight" not in learning
    for name, parameter in learning.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@torch.no_grad()
def test_first_tokens_alone_are_predicted_the_same(teacher, options):
    student, condition = make_student(teacher, **options), prompts()
    x = torch.randn(len(LENGTHS), SIDE**2, C, generator=torch.Generator().manual_seed(8))
    for finished, stop in ((0, 1), (0, 6), (5, 6), (5, 11)):
        known = torch.full((len(LENGTHS),), finished)
        whole, part = student(x, known, condition), student(x[:, :stop], known, condition)
        torch.testing.assert_close(part.logits, whole.logits[:, :stop], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(part.codes, whole.codes[:, :stop], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@torch.no_grad()
def test_student_rows_depend_on_themselves_alone(teacher, options):
    student, condition = make_student(teacher, **options), prompts()
    x = torch.randn(len(LENGTHS), SIDE**2, C, generator=torch.Generator().manual_seed(7))
    finished = torch.tensor([0, 5, 16])
    together = student(x, finished, condition)
    for row in range(len(LENGTHS)):
        alone = student(x[row : row + 1], finished[row : row + 1], condition[row : row + 1])
        torch.testing.assert_close(alone.logits[0], together.logits[row], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.codes[0], together.codes[row], atol=1e-5, rtol=1e-4)
    assert not torch.equal(student(x, finished * 0, condition).logits, together.logits)


@torch.no_grad()
def test_student_with_the_teachers_input_starts_as_the_teacher(teacher):
    """With every code known it reads what the teacher reads, so its logits are the teacher's."""
    student, condition = make_student(teacher, teacher_input=True), prompts()
    tokens = random_tokens(8)
    finished = torch.full((len(LENGTHS),), SIDE**2)
    found = student(teacher.codebook[tokens], finished, condition).logits
    torch.testing.assert_close(found, teacher.logits(tokens, condition), atol=1e-5, rtol=1e-4)


def test_shallower_student_takes_evenly_spaced_layers(teacher):
    torch.manual_seed(1)
    student = JanusStudent(JanusStudentConfig(**SIZES | {"n_layer": 1}))
    student.initialise_from(teacher)
    ours, theirs = student.language_model.layers[0], teacher.transformer.language_model.layers[0]
    assert torch.equal(ours.mlp.up_proj.weight, theirs.mlp.up_proj.weight)


def test_blocks_computed_again_give_the_same_gradients(teacher):
    x = torch.randn(len(LENGTHS), SIDE**2, C, generator=torch.Generator().manual_seed(6))
    found = []
    for again in (False, True):
        student = make_student(teacher, teacher_input=True)
        if again:
            checkpoint_blocks(student)
        student(x, torch.tensor([0, 5, 16]), prompts()).logits.square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]))
    torch.testing.assert_close(*found)
    assert found[0].abs().max() > 0
