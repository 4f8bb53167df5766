"""Students of both families: every position is read, starts, mistakes."""

import json

import pytest
import torch

from dd.errors import DDError
from dd.models.registry import build_student, student_config
from dd.models.student import GUESS
from tests.helpers.small.models import B, V, make_case, make_teacher


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"teacher_input": True, "noise_logits": True, "refinements": 1, "layers": 2},
        {"teacher_input": True, "flow_steps": 3, "refinements": 2},
        {"teacher_input": True, "noise_guess": True},
    ],
)
@pytest.mark.parametrize("kind", ["llamagen", "t2i", "var"])
def test_student_reads_every_position(kind, options):
    teacher, condition = make_case(kind)
    config = json.loads(json.dumps(student_config(teacher, **options)))
    student = build_student("var" if kind == "var" else "llamagen", config)
    student.initialise_from(teacher)
    noise = torch.randn(B, student.groups.length, 6)
    finished = torch.tensor([0, 1, 3])
    output = student(noise, finished, condition)
    assert output.logits.shape == (B, student.groups.length, V)
    assert output.codes.shape == noise.shape
    assert len(output.auxiliary) == options.get("refinements", 0)
    single = student(noise[1:2], finished[1:2], condition[1:2])
    torch.testing.assert_close(single.logits, output.logits[1:2], atol=1e-4, rtol=1e-4)
    sum(part.square().mean() for part in (output.logits, output.codes, *output.auxiliary)).backward()
    idle = {
        name for name, parameter in student.named_parameters() if parameter.requires_grad and parameter.grad is None
    }
    assert idle == set()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"teacher_input": True, "noise_logits": True, "refinements": 2},
        {"teacher_input": True, "noise_guess": True, "flow_steps": 3},
    ],
)
@pytest.mark.parametrize("kind", ["llamagen", "t2i", "var"])
def test_first_groups_alone_are_predicted_the_same(kind, options):
    teacher, condition = make_case(kind)
    student = build_student("var" if kind == "var" else "llamagen", student_config(teacher, **options))
    torch.manual_seed(0)
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    noise = torch.randn(B, student.groups.length, 6)
    with torch.no_grad():
        for finished in (0, 1):
            known = torch.full((B,), finished)
            whole = student(noise, known, condition)
            for stop in student.groups.starts[finished + 1 :]:
                part = student(noise[:, :stop], known, condition)
                torch.testing.assert_close(part.logits, whole.logits[:, :stop], atol=1e-3, rtol=1e-4)
                torch.testing.assert_close(part.codes, whole.codes[:, :stop], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llamagen", "t2i", "var"])
@pytest.mark.parametrize("guess", [False, True])
def test_student_with_teacher_input_starts_as_the_teacher(kind, guess):
    teacher, condition = make_case(kind)
    options = student_config(teacher, teacher_input=True, noise_guess=guess)
    student = build_student("var" if kind == "var" else "llamagen", options)
    student.initialise_from(teacher)
    tokens, groups = torch.randint(V, (B, student.groups.length)), student.groups
    for finished in (0, 2):
        x = teacher.codebook[tokens].clone()
        x[:, groups.starts[finished] :] = torch.randn_like(x[:, groups.starts[finished] :])
        here = groups.slice(finished)
        logits = student(x, torch.full((B,), finished), condition).logits[:, here]
        torch.testing.assert_close(logits, teacher.logits(tokens, condition)[:, here], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llamagen", "var"])
def test_a_guess_from_noise_looks_like_codes(kind):
    teacher, _ = make_case(kind)
    student = build_student(kind, student_config(teacher, teacher_input=True, noise_guess=True))
    student.initialise_from(teacher)
    guesses, codes = student.guessed(torch.randn(20000, 6)), teacher.codebook
    torch.testing.assert_close(guesses.mean(0), codes.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(guesses.std(0), GUESS * codes.std(0), atol=0.03, rtol=0)


@pytest.mark.parametrize("kind", ["llamagen", "var"])
def test_official_initialisation_keeps_class_one(kind):
    """The authors' code overwrites the embedding of class 1; ours copies it."""
    teacher, _ = make_case(kind)
    student = build_student(kind, student_config(teacher))
    student.initialise_from(teacher)
    theirs, ours = teacher.transformer.state_dict(), student.state_dict()
    name = "class_emb.weight" if kind == "var" else "cls_embedding.embedding_table.weight"
    assert torch.equal(theirs[name], ours[name])
    if kind == "var":
        assert torch.equal(ours["lvl_embed.weight"][2:], theirs["lvl_embed.weight"][1:])
        assert torch.equal(ours["pos_1LC"][:, 2:], theirs["pos_1LC"][:, 1:])
    else:
        embedded = student.tok_embeddings(teacher.codebook)
        wanted = theirs["tok_embeddings.weight"]
        assert (embedded - wanted).square().mean() < (wanted.mean(0) - wanted).square().mean()


def test_student_mistakes_are_explained():
    teacher, other = make_teacher("llamagen"), make_teacher("var")
    student = build_student("llamagen", student_config(teacher))
    with pytest.raises(DDError, match="expected a LlamaGen teacher, got VARTeacher"):
        student.initialise_from(other)
    wide = build_student("llamagen", student_config(teacher, dim=36))
    with pytest.raises(DDError, match=r"expected the teacher's .* \(8, 24\) in the student, got \(8, 36\)"):
        wide.initialise_from(teacher)
    with pytest.raises(DDError, match="at most the teacher's 3 layers, got 9"):
        build_student("llamagen", student_config(teacher, layers=9)).initialise_from(teacher)
    with pytest.raises(DDError, match="noise_guess need teacher_input"):
        build_student("var", student_config(other, refinements=1))
    with pytest.raises(DDError, match="noise_guess need teacher_input"):
        build_student("var", student_config(other, noise_guess=True))
