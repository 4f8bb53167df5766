"""The terms on the student's own tokens: what they are worth at the fixed point, and which way they push."""

import pytest
import torch

from dd.distillation.on_policy import (
    CLIP,
    ConditionalScore,
    FakeScore,
    fake_score_loss,
    own_prefix_loss,
    own_tokens,
    score_loss,
    teacher_view,
)
from dd.flow.map import Codes, posterior
from dd.models.base import Filters, StudentOutput
from tests.helpers.tiny import V, tiny_pairs, tiny_teacher


@pytest.fixture(params=["llamagen", "var"])
def case(request):
    teacher = tiny_teacher(request.param)
    pairs = tiny_pairs(teacher, 8)
    return teacher, pairs, torch.ones_like(pairs.tokens, dtype=torch.bool)


def certain(tokens, confidence=30.0):
    """A student that gives out these tokens."""
    logits = confidence * torch.nn.functional.one_hot(tokens, V).float()
    return StudentOutput(logits.requires_grad_(), torch.zeros(*tokens.shape, 1))


def test_known_positions_keep_their_tokens(case):
    _, pairs, unknown = case
    unknown[:, :2] = False
    other = (pairs.tokens + 1) % V
    own = own_tokens(certain(other), pairs.tokens, unknown)
    assert torch.equal(own[:, :2], pairs.tokens[:, :2])
    assert torch.equal(own[:, 2:], other[:, 2:])


def test_own_prefix_loss_vanishes_on_the_trajectory_only(case):
    teacher, pairs, unknown = case
    codes = Codes.prepare(teacher.codebook)
    losses = []
    for tokens in (pairs.tokens, (pairs.tokens + 1) % V):
        view = teacher_view(teacher, tokens, pairs.condition, Filters())
        losses.append(own_prefix_loss(certain(tokens), pairs.noise, view, unknown, codes, None).item())
    assert losses[0] < 0.5 < 5 < losses[1]


def test_score_moves_towards_what_the_teacher_finds_likelier(case):
    teacher, pairs, unknown = case
    view = teacher_view(teacher, pairs.tokens, pairs.condition, Filters())
    flat = StudentOutput(torch.zeros_like(view).requires_grad_(), torch.zeros(1))
    fake_score = torch.full_like(view, 1 / V).log()
    score_loss(flat, view, fake_score, unknown).backward()
    ratio = (view - fake_score).clamp(-CLIP, CLIP)
    above = ratio > ratio.mean(-1, keepdim=True)  # likelier than the others by comparison with the fake_score
    assert (flat.logits.grad[above] <= 0).all()
    assert (flat.logits.grad[~above] >= 0).all()
    learnt = fake_score_loss(fake_score, pairs.tokens, unknown)
    assert learnt.item() == pytest.approx(torch.log(torch.tensor(float(V))).item(), rel=1e-5)


@pytest.mark.parametrize(("family", "off"), [("llamagen", 1.0), ("var", 0.0)])
def test_a_shadow_equal_to_the_teacher_gives_no_push(family, off):
    teacher = tiny_teacher(family)
    pairs = tiny_pairs(teacher, 8)
    unknown = torch.ones_like(pairs.tokens, dtype=torch.bool)
    view = teacher_view(teacher, pairs.tokens, pairs.condition, Filters(guidance=off))
    fake_score = FakeScore(teacher)
    found = fake_score(pairs.tokens, pairs.condition)
    assert torch.allclose(found, view, atol=1e-4)
    assert fake_score.network.tokenizer is teacher.tokenizer
    output = certain(pairs.tokens, 1.0)
    assert abs(score_loss(output, view, found, unknown).item()) < 1e-4


def test_the_conditional_score_moves_vectors_towards_what_the_teacher_finds_likelier():
    codebook = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 5.0]])
    drawn = codebook[torch.tensor([[1, 1, 0, 1]])].requires_grad_()
    teacher = torch.tensor([0.9, 0.1, 0.0]).log().expand(1, 4, 3)
    fake = torch.tensor([0.1, 0.9, 0.0]).clamp_min(1e-9).log().expand(1, 4, 3)
    unknown = torch.tensor([[True, True, True, False]])
    score = ConditionalScore()
    for _ in range(200):
        score(drawn, teacher, fake, unknown, codebook).backward()
    assert (drawn.grad[0, :3, 0] > 0).all()  # downhill is towards the first code
    assert drawn.grad[0, 3].abs().max() == 0
    assert drawn.grad[0, :3, 1].abs().max() < 1e-5
    assert score(drawn, teacher, teacher, unknown, codebook).item() == 0


def test_the_conditional_score_is_the_gradient_of_a_divergence():
    """Of the KL divergence between the noisy student and teacher, as one vector of the student moves."""
    codebook, t = torch.tensor([[-1.0], [0.5], [2.0]]), 0.6
    p_student, p_teacher = torch.tensor([0.3, 0.5, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    grid = torch.linspace(-12, 12, 20001)[:, None].double()

    def density(p, vectors):
        return (p.double() * torch.exp(-(((grid - t * vectors.double().T) / (1 - t)) ** 2) / 2)).sum(1) / (1 - t)

    moved = codebook.clone().requires_grad_()
    q, p = density(p_student, moved), density(p_teacher, codebook)
    (q * (q.log() - p.log())).sum().mul(grid[1, 0] - grid[0, 0]).div((2 * torch.pi) ** 0.5).backward()

    def mean_push(code):
        noise = torch.linspace(-6, 6, 4001)[:, None]
        x, times = (1 - t) * noise + t * codebook[code], torch.full((4001,), t)
        means = [posterior(x, times, probs.log().expand(4001, 3), codebook)[1] for probs in (p_student, p_teacher)]
        weight = torch.exp(-noise.square() / 2) / (2 * torch.pi) ** 0.5 * (noise[1] - noise[0])
        return ((means[0] - means[1]) * weight).sum() * t / (1 - t) ** 2

    wanted = torch.stack([p_student[code] * t * mean_push(code) for code in range(3)])
    assert torch.allclose(moved.grad[:, 0], wanted, atol=2e-4)
