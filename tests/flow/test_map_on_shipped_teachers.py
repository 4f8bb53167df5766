"""The map on the shipped teachers' real contexts: trained codebooks have close codes, which random ones have not."""

from functools import cache

import pytest
import torch

from dd.bench.map_accuracy import classes_of, exact_map
from dd.bench.sampling import teacher_filters
from dd.checkpoints import teachers, zoo
from dd.flow.map import map_noise
from dd.models.base import Teacher
from dd.trajectories.noise import noise
from dd.trajectories.trajectory import balanced_classes, sample, trajectory

TOKENS = 25_600
SHIPPED = [n for n, entry in zoo.entries().items() if entry.shipped and entry.kind == "teacher" and entry.classes]


@cache
def load(name: str) -> Teacher:
    return teachers.load_teacher(name)


@pytest.mark.parametrize("name", SHIPPED)
def test_mapped_tokens_are_as_likely_as_drawn_ones(name):
    """Mean -log p and share of the likeliest code, against their expectation and against multinomial draws."""
    teacher, filters = load(name), teacher_filters(name)
    count = TOKENS // teacher.groups.length
    classes = balanced_classes(torch.arange(count), classes_of(teacher))
    e = noise(0, torch.arange(count), teacher.groups.length, teacher.codebook.shape[1])
    found = {}
    for kind in ("mapped", "drawn"):
        if kind == "mapped":
            tokens = trajectory(teacher, classes, e, filters).tokens
        else:
            tokens = sample(teacher, classes, filters, torch.Generator().manual_seed(0))
        log_p = torch.cat(
            [teacher.score(t, c, filters) for t, c in zip(tokens.split(50), classes.split(50), strict=True)]
        )
        p = log_p.exp()
        surprise = -log_p.gather(2, tokens[..., None])[..., 0].double()
        # Given its context a token's -log p has the entropy as its mean: the differences are uncorrelated.
        excess = surprise + torch.where(p > 0, p * log_p, 0).sum(-1)
        mode = (tokens == log_p.argmax(-1)).double() - p.amax(-1)
        for values in (excess, mode):
            assert abs(values.mean()) < 4 * values.std() / values.numel() ** 0.5, kind
        images = surprise.mean(1)
        found[kind] = images.mean(), images.var() / len(images)
    (mapped, one), (drawn, two) = found.values()
    assert abs(mapped - drawn) < 4 * (one + two).sqrt()


@pytest.mark.parametrize("name", SHIPPED)
def test_agreement_with_the_exact_flow(name):
    teacher, filters = load(name), teacher_filters(name)
    count = max(1, 1500 // teacher.groups.length)
    classes = balanced_classes(torch.arange(count), classes_of(teacher))
    tokens = sample(teacher, classes, filters, torch.Generator().manual_seed(1))
    log_p = teacher.score(tokens, classes, filters).flatten(0, 1)
    e = noise(1, torch.arange(len(log_p)), 1, teacher.codebook.shape[1])[:, 0]
    result = map_noise(e, log_p, teacher.codebook)
    assert (result.tokens == exact_map(e, log_p, teacher.codebook)).double().mean() >= 0.997
    assert result.evaluations.double().mean() <= 24
