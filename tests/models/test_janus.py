"""Janus against transformers' own generation, with random weights of tiny sizes: tokens, logits, images."""

import pytest
import torch

from dd.distillation.memory import checkpoint_blocks
from dd.errors import DDError
from dd.models.base import Filters
from dd.models.janus.student import JanusStudent, JanusStudentConfig
from dd.models.janus.teacher import JanusTeacher
from dd.models.janus.tokenizer import JanusTokenizer, JanusVQConfig
from dd.models.janus.transformer import JanusConfig, Transformer
from dd.text.conditions import Captions
from tests.helpers.tiny_janus import whole_model
from tests.parity.janus import (
    CODES,
    LENGTHS,
    SIDE,
    SIZES,
    C,
    V,
    generate,
    greedy,
    our_teacher,
    prompts,
    random_tokens,
    stepwise,
    their_logits,
)

transformers = pytest.importorskip("transformers", reason='the extra "text" is not installed')


@pytest.fixture(scope="module")
def theirs():
    """transformers' whole model, vision tower and all."""
    return whole_model(SIZES, CODES)


@pytest.fixture(scope="module")
def teacher(theirs):
    return our_teacher(theirs)


@pytest.mark.parametrize("guidance", [1.5, 5.0])
def test_greedy_tokens_are_those_of_transformers(theirs, teacher, guidance):
    condition = prompts()
    expected = generate(theirs, condition, guidance)
    found = greedy(teacher, condition, guidance)
    assert torch.equal(found, expected)
    assert len(torch.unique(expected)) > 8  # a constant would be no evidence
    assert len({tuple(row.tolist()) for row in expected}) == len(LENGTHS)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_logits_are_those_of_transformers(theirs, teacher, guidance):
    """Its language model, head and guidance over the whole sequence at once, without a cache."""
    condition, tokens = prompts(), random_tokens(1)
    expected = their_logits(theirs, condition, tokens, guidance)
    if guidance == 1:
        torch.testing.assert_close(teacher.logits(tokens, condition), expected, atol=2e-4, rtol=0)
    assert expected.std() > 0.1
    found = teacher.score(tokens, condition, Filters(guidance=guidance))
    torch.testing.assert_close(found, expected.log_softmax(-1), atol=2e-4, rtol=0)
    torch.testing.assert_close(stepwise(teacher, condition, tokens, guidance=guidance), found, atol=2e-4, rtol=0)


def test_images_are_those_of_transformers(theirs, teacher):
    tokens = random_tokens(2, 2)
    expected = theirs.decode_image_tokens(tokens).permute(0, 3, 1, 2)
    assert torch.equal(teacher.decode(teacher.codebook[tokens]), expected)
    assert expected.shape == (2, 3, teacher.tokenizer.image_size, teacher.tokenizer.image_size)
    assert expected.std() > 0.01


@pytest.mark.parametrize("row", range(len(LENGTHS)))
def test_a_prompt_alone_gives_what_it_gives_in_a_batch(theirs, teacher, row):
    """Also without any padding, as a single prompt comes out of the processor."""
    together = greedy(teacher, prompts())
    alone = prompts()[row : row + 1]
    assert torch.equal(greedy(teacher, alone), together[row : row + 1])
    short = Captions(alone.states[:, -LENGTHS[row] :], alone.mask[:, -LENGTHS[row] :])
    assert torch.equal(greedy(teacher, short), together[row : row + 1])
    assert torch.equal(generate(theirs, short), together[row : row + 1])


@pytest.mark.parametrize("prefix", [0, 1, 7])
def test_a_prefix_is_taken_in_at_once(teacher, prefix):
    tokens = random_tokens(3)
    more = {"guidance": 5.0, "top_k": 20, "top_p": 0.9, "temperature": 0.8}
    found = stepwise(teacher, prompts(), tokens, prefix=prefix, **more)
    expected = teacher.score(tokens, prompts(), Filters(**more))
    torch.testing.assert_close(found, expected[:, prefix:], atol=2e-4, rtol=1e-4)
    assert 1 <= (found > -torch.inf).sum(-1).max() <= 20


def test_encoding_finds_the_codes_of_a_map(teacher, monkeypatch):
    """Latents of any length are compared on the unit sphere, as Janus's tokenizer was trained."""
    tokens = random_tokens(4, 2)
    latents = 3.7 * teacher.codebook[tokens].transpose(1, 2).unflatten(2, (SIDE, SIDE))
    monkeypatch.setattr(teacher.tokenizer.quant_conv, "forward", lambda x: latents)
    size = teacher.tokenizer.image_size
    assert torch.equal(teacher.tokenizer.encode(torch.zeros(2, 3, size, size)), tokens)
    with pytest.raises(DDError, match=rf"expected images \(B, 3, {size}, {size}\), got \(2, 3, 4, 4\); resize"):
        teacher.tokenizer.encode(torch.zeros(2, 3, 4, 4))


def make_student(teacher, **options):
    torch.manual_seed(1)
    student = JanusStudent(JanusStudentConfig(**SIZES, **options))
    student.initialise_from(teacher)
    return student


OPTIONS = {
    "plain": {},
    "teacher_input": {"teacher_input": True},
    "all": {"teacher_input": True, "noise_logits": True, "flow_steps": 3, "refinements": 2},
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


def test_images_pass_gradients_to_codes(teacher):
    """What the perceptual term needs: transformers' decoder multiplies in place."""
    codes = teacher.codebook[torch.arange(SIDE**2) % V][None].double().requires_grad_()
    tokenizer = JanusTokenizer(JanusVQConfig(**CODES)).double()
    direction = torch.randn_like(codes)
    tokenizer.decode(codes).square().mean().backward()
    step = 1e-6
    with torch.no_grad():
        up, down = (tokenizer.decode(codes + sign * step * direction).square().mean() for sign in (1, -1))
    torch.testing.assert_close((codes.grad * direction).sum(), (up - down) / (2 * step), rtol=1e-4, atol=1e-9)


def test_refusals(teacher):
    with pytest.raises(DDError, match=r"guidance_tokens: Janus guides every token \(-1\), got 3; leave it out"):
        teacher.start(prompts(), Filters(guidance=5.0, guidance_tokens=3))
    with pytest.raises(DDError, match="prefix: expected at most 16 tokens, got 17; shorten it"):
        teacher.start(prompts(), Filters(), torch.zeros(3, 17, dtype=torch.int64))
    with pytest.raises(DDError, match="refinements need teacher_input"):
        JanusStudentConfig(refinements=2)
    with pytest.raises(DDError, match=r"a transformer of 48 codes and 16 tokens .* got 20 codes and 9 tokens"):
        JanusTeacher(Transformer(JanusConfig(**SIZES | {"vocab_size": 20, "block_size": 9})), teacher.tokenizer)
    state = teacher.start(prompts(), Filters(), torch.zeros(3, 15, dtype=torch.int64))
    teacher.advance(state, torch.zeros(3, 1, dtype=torch.int64))
    with pytest.raises(DDError, match="all 16 tokens are drawn; start a new state for more images"):
        teacher.log_probs(state)


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
