"""Distances in feature space: decoding in chunks, again, or in bf16 gives the same gradients."""

import pytest
import torch

from dd.distillation.memory import SavedBytes
from dd.distillation.perceptual import bf16_decoder, code_distance, recomputed
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from tests.helpers.tiny import C, tiny_teacher


@pytest.fixture(params=["llamagen", "var"])
def case(request):
    teacher = tiny_teacher(request.param)
    network = SmallClassifier(ClassifierConfig(3, teacher.tokenizer.image_size, (4, 5), (0, 0)))
    return request.param, teacher, network.eval().requires_grad_(False).perceptual_distance


def test_chunks_give_the_gradient_of_the_whole_and_keep_little(case):
    _, teacher, distance = case
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(7, teacher.groups.length, C, generator=generator)
    targets = torch.randn(7, teacher.groups.length, C, generator=generator)
    weights = torch.rand(7, generator=generator)
    found = []
    for measure in (
        lambda a, b: distance(teacher.tokenizer.decode(a), teacher.tokenizer.decode(b).detach()),
        code_distance(teacher.tokenizer.decode, distance, 3),
    ):
        given = codes.clone().requires_grad_()
        distances = measure(given, targets)
        graph = distances.grad_fn
        (distances * weights).sum().backward()
        found.append((distances.detach(), given.grad))
    torch.testing.assert_close(found[0], found[1])
    assert found[1][1].abs().sum() > 0
    assert graph is not None
    assert [name for name, _ in graph.next_functions if name] == [graph.next_functions[0][0]]
    assert type(graph.next_functions[0][0]).__name__ == "AccumulateGrad"  # of the codes: nothing of the decoder is left
    with torch.no_grad():
        torch.testing.assert_close(code_distance(teacher.tokenizer.decode, distance, 4)(codes, targets), found[0][0])


def test_a_recomputed_decoder_gives_the_same_gradient_and_keeps_its_images(case):
    _, teacher, _ = case
    codes = torch.randn(5, teacher.groups.length, C, generator=torch.Generator().manual_seed(0))
    found, saved = [], []
    for decode in (teacher.tokenizer.decode, recomputed(teacher.tokenizer.decode, 2)):
        given = codes.clone().requires_grad_()
        with SavedBytes(teacher.parameters()) as kept:
            images = decode(given)
            loss = images.mean(0).square().sum()
        saved.append(kept.total)
        loss.backward()
        found.append((images.detach(), given.grad))
    torch.testing.assert_close(found[0], found[1])
    assert saved[1] < saved[0] / 10


def test_the_bf16_decoder_draws_the_same_images_and_leaves_the_tokenizer_alone(case):
    _, teacher, distance = case
    before = {name: value.clone() for name, value in teacher.tokenizer.state_dict().items()}
    fast = bf16_decoder(teacher.tokenizer)
    codes = torch.randn(3, teacher.groups.length, C, generator=torch.Generator().manual_seed(0))
    right = teacher.tokenizer.decode(codes)
    assert fast.decode(codes).dtype == torch.float32
    assert 0 < (fast.decode(codes) - right).abs().max() < 0.05 * right.abs().max()
    gradients = []
    for tokenizer in (teacher.tokenizer, fast):
        given = codes.clone().requires_grad_()
        code_distance(tokenizer.decode, distance, 2)(given, 0 * codes).sum().backward()
        gradients.append(given.grad.flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95
    assert all(torch.equal(value, before[name]) for name, value in teacher.tokenizer.state_dict().items())
