"""A run of the training loop on tiny models."""

import pytest
import torch

from dd.distillation.task import Pairs, Task
from dd.distillation.training import Outcome
from tests.helpers.tiny import Cycle, tiny_pairs, tiny_teacher


def make_task(teacher, pairs: Pairs, folder, batch: int = 4, stop: int | None = None, **more) -> Task:
    held_out = pairs.take(slice(24, None))
    return Task(teacher, Cycle(pairs.take(slice(24)), batch, stop), held_out, folder, **more)


def weights(outcome: Outcome) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in outcome.student.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


FAMILIES = ("llamagen", "var")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def teacher(family):
    return tiny_teacher(family)


@pytest.fixture(scope="module")
def pairs(teacher):
    return tiny_pairs(teacher, 32)
