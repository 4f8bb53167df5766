"""Loss terms against plain loops; what carries no loss; gradients through the tokenizer's decoder."""

import math

import pytest
import torch

from dd.distillation.losses import LossWeights, distillation_loss, mean_over
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.models.base import StudentOutput
from tests.helpers.tiny import C, V, tiny_teacher

B, L = 2, 5


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits, auxiliary = torch.randn(2, B, L, V, generator=generator)
    codes = torch.randn(B, L, C, generator=generator).requires_grad_()
    tokens = torch.randint(V, (B, L), generator=generator)
    unknown = torch.tensor([[False, False, True, True, True], [True] * 5])
    codebook = torch.randn(V, C, generator=generator)
    return StudentOutput(logits.requires_grad_(), codes, (auxiliary, logits.detach())), tokens, unknown, codebook


def test_terms_are_means_over_unknown_positions(case):
    output, tokens, unknown, codebook = case
    weights = LossWeights(cross_entropy=2.0, regression=0.5, auxiliary=0.25)
    terms = distillation_loss(output, tokens, unknown, codebook, weights)
    entropies, auxiliary, squares = [], [], []
    for b in range(B):
        for i in range(L):
            if unknown[b, i]:
                entropies.append(-output.logits[b, i].log_softmax(-1)[tokens[b, i]].item())
                auxiliary.append(-output.auxiliary[0][b, i].log_softmax(-1)[tokens[b, i]].item())
                squares.append((output.codes[b, i] - codebook[tokens[b, i]]).square().sum().item())
    assert list(terms) == ["cross_entropy", "auxiliary", "regression"]
    assert terms["cross_entropy"].item() == pytest.approx(2 * sum(entropies) / 8, rel=1e-5)
    assert terms["auxiliary"].item() == pytest.approx(0.25 * (sum(auxiliary) + sum(entropies)) / 16, rel=1e-5)
    assert terms["regression"].item() == pytest.approx(0.5 * sum(squares) / 8, rel=1e-5)


def test_known_positions_get_no_gradient(case):
    output, tokens, unknown, codebook = case
    terms = distillation_loss(output, tokens, unknown, codebook, LossWeights(regression=1.0))
    sum(terms.values()).backward()
    for tensor in (output.logits, output.codes):
        assert torch.equal(tensor.grad.abs().sum(-1) > 0, unknown)


def test_a_uniform_student_loses_log_v(case):
    _, tokens, unknown, codebook = case
    flat = StudentOutput(torch.zeros(B, L, V), torch.zeros(B, L, C))
    terms = distillation_loss(flat, tokens, unknown, codebook, LossWeights())
    assert terms["cross_entropy"].item() == pytest.approx(math.log(V))
    assert distillation_loss(flat, tokens, unknown, codebook, LossWeights(auxiliary=1.0)).keys() == {"cross_entropy"}


def test_nothing_unknown_is_no_loss(case):
    output, tokens, _, codebook = case
    terms = distillation_loss(output, tokens, torch.zeros(B, L, dtype=torch.bool), codebook, LossWeights())
    assert terms["cross_entropy"].item() == 0
    assert mean_over(torch.tensor([1.0, 3.0]), torch.tensor([True, True])).item() == 2


@pytest.mark.parametrize("family", ["llamagen", "var"])
def test_perceptual_term_goes_through_the_decoder(family):
    teacher = tiny_teacher(family)
    length, size = teacher.groups.length, teacher.tokenizer.image_size
    network = SmallClassifier(ClassifierConfig(3, size, (4, 5), (0, 0))).eval().requires_grad_(False)
    tokens = torch.randint(V, (B, length), generator=torch.Generator().manual_seed(0))
    unknown = torch.arange(length).expand(B, -1) >= 1
    codes = torch.zeros(B, length, C, requires_grad=True)
    output = StudentOutput(torch.zeros(B, length, V), codes)
    weights = LossWeights(cross_entropy=0.0, perceptual=3.0)
    images = (teacher.tokenizer.decode, network.perceptual_distance)
    terms = distillation_loss(output, tokens, unknown, teacher.codebook, weights, *images)
    assert list(terms) == ["perceptual"]
    terms["perceptual"].backward()
    assert torch.equal(codes.grad.abs().sum(-1) > 0, unknown)
    right = StudentOutput(output.logits, teacher.codebook[tokens])
    same = distillation_loss(right, tokens, unknown, teacher.codebook, weights, *images)
    assert same["perceptual"].item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="the perceptual term needs decode and distance"):
        distillation_loss(output, tokens, unknown, teacher.codebook, weights)
