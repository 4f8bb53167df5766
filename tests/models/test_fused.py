"""Lean passes: matrices joined for inference keep names, values and training; few operations a token."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dd.checkpoints.safe import save_tensors
from dd.models.base import Filters
from dd.models.fused import Joined
from dd.models.precision import store_in_bf16
from dd.models.registry import build_teacher
from dd.models.registry import family as family_record
from dd.trajectories.trajectory import sample
from tests.helpers.tiny import CODES, SIZES, tiny_student, tiny_teacher

FAMILIES = ("llamagen", "var")


class Operations(TorchDispatchMode):
    """How often each operation is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def layers() -> tuple[nn.Linear, nn.Linear]:
    return nn.Linear(4, 3, bias=False), nn.Linear(4, 5, bias=False)


def test_a_joined_matrix_is_the_layers_own():
    one, two = layers()
    parameters, values = (one.weight, two.weight), (one.weight.detach().clone(), two.weight.detach().clone())
    joined = Joined((one, two))
    with torch.inference_mode():
        matrix = joined.weight()
        assert torch.equal(matrix, torch.cat(values))
        assert joined.weight() is matrix
    assert one.weight is parameters[0]  # an optimizer still has the right ones
    assert two.weight is parameters[1]
    assert not matrix.is_inference()
    with torch.no_grad():
        two.weight.add_(1)
    assert torch.equal(joined.weight()[3:], values[1] + 1)
    (one(torch.ones(4)).sum() + two(torch.ones(4)).sum()).backward()
    assert one.weight.grad is not None


@pytest.mark.parametrize("change", ["to", "assign", "copy"])
def test_new_tensors_of_a_layer_are_noticed(change):
    one, two = layers()
    joined = Joined((one, two))
    joined.weight()
    if change == "to":
        two.to(torch.float64).to(torch.float32)
        with torch.no_grad():
            two.weight.mul_(2)
    elif change == "assign":
        two.load_state_dict({"weight": torch.ones(5, 4)}, assign=True)
    else:
        joined = copy.deepcopy(joined)
        with torch.no_grad():
            joined.layers[1].weight.zero_()
        assert two.weight.any()
        one, two = joined.layers
    assert torch.equal(joined.weight(), torch.cat([one.weight, two.weight]))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_gradients_the_same_numbers(family):
    """The passes that write in place and join matrices agree with those that are trained."""
    teacher = tiny_teacher(family)
    student = tiny_student(teacher, family, teacher_input=True, refinements=1).eval()
    names, x = list(student.state_dict()), torch.randn(2, teacher.groups.length, teacher.codebook.shape[1])
    arguments = x, torch.tensor([0, 1]), torch.tensor([0, 2])
    trained = student(*arguments)
    assert trained.logits.requires_grad
    with torch.inference_mode():
        drawn = student(*arguments)
    torch.testing.assert_close(drawn.logits, trained.logits.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(drawn.codes, trained.codes.detach(), atol=1e-5, rtol=1e-5)
    assert list(student.state_dict()) == names
    again = student(*arguments).logits
    assert torch.equal(again, trained.logits)
    again.sum().backward()


def test_joined_networks_are_saved_and_stored_in_bf16(tmp_path):
    teacher = tiny_teacher("llamagen")
    before = {name: tensor.clone() for name, tensor in teacher.transformer.state_dict().items()}
    sample(teacher, torch.arange(2), Filters(), torch.Generator().manual_seed(0))
    save_tensors(tmp_path / "t.safetensors", teacher.transformer.state_dict())
    for name, tensor in teacher.transformer.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    store_in_bf16(teacher)
    feed_forward = teacher.transformer.layers[0].feed_forward
    assert feed_forward.both.weight().dtype == torch.bfloat16


@pytest.mark.parametrize(("family", "most"), [("llamagen", 47), ("var", 42)])
def test_operations_of_a_block(family, most):
    """Two networks that differ in depth alone: what a block costs in the decoding loop."""
    counts = []
    for depth in (1, 2):
        sizes = SIZES[family] | {family_record(family).depth: depth}
        teacher = build_teacher(family, CODES[family], sizes).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        draw = lambda t=teacher, g=generator: sample(t, torch.arange(2), Filters(guidance=2.0), g)  # noqa: E731
        draw()
        with Operations() as operations:
            draw()
        counts.append(operations.calls.total())
    a_pass = (counts[1] - counts[0]) / len(teacher.groups)
    assert a_pass <= most


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loop_never_asks_the_device(family):
    """Nothing in a teacher's loop needs a number on the host: an accelerator is never waited for."""
    teacher = tiny_teacher(family)
    filters, generator = Filters(guidance=2.0, top_k=5), torch.Generator().manual_seed(0)
    with Operations() as start:
        teacher.start(torch.arange(2), filters)
    with Operations() as whole:
        sample(teacher, torch.arange(2), filters, generator)
    asks = ("aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.is_nonzero")
    assert {name: whole.calls[name] for name in asks} == {name: start.calls[name] for name in asks}
