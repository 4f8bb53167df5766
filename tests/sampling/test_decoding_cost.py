"""What decoding does not do: nothing twice, and nothing of the size V x B x L x C."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dd.models.base import Filters
from dd.models.llamagen import student as llamagen_student
from dd.models.registry import build_student, build_teacher, student_config
from dd.sampling import samplers as sampling
from dd.trajectories.trajectory import sample
from tests.helpers.tiny import tiny_teacher

V, C, SIDES, B = 512, 16, (1, 2, 3), 4
CODES: dict[str, dict[str, Any]] = {
    "var": {"codebook_size": V, "codebook_dim": C, "ch": 32, "ch_mult": [1], "patch_nums": SIDES},
    "llamagen": {"codebook_size": V, "codebook_dim": C, "z_channels": 32, "ch": 32, "ch_mult": [1], "latent": 4},
}
SIZES: dict[str, dict[str, Any]] = {
    "var": {"depth": 2, "embed_dim": 16, "num_heads": 2, "num_classes": 5, "vocab_size": V, "codebook_dim": C}
    | {"patch_nums": SIDES},
    "llamagen": {"n_layer": 2, "n_head": 2, "dim": 16, "num_classes": 5, "vocab_size": V, "block_size": 16},
}


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = result if isinstance(result, tuple | list) else (result,)
        self.elements = max([self.elements, *(t.numel() for t in tensors if isinstance(t, torch.Tensor))])
        return result


@pytest.mark.parametrize("steps", [(0,), (0, 2)])
@pytest.mark.parametrize("family", ["llamagen", "var"])
def test_student_makes_nothing_of_size_vblc(family, steps):
    teacher = build_teacher(family, CODES[family], SIZES[family]).eval()
    student = build_student(family, student_config(teacher)).eval()
    L = student.groups.length
    noise = torch.randn(B, L, C)
    with torch.inference_mode(False), torch.no_grad(), Largest() as largest:
        sampling.sample(student, teacher.codebook, noise, torch.arange(B), steps, split=1)
    assert B * L * V <= largest.elements < V * B * L * C / 8  # the logits are the largest thing


@pytest.mark.parametrize("options", [{}, {"teacher_input": True}])
def test_no_nearest_code_where_nothing_is_kept(monkeypatch, options):
    teacher = tiny_teacher("llamagen")
    student = build_student("llamagen", student_config(teacher, **options)).eval()
    for module in (sampling, llamagen_student):
        monkeypatch.setattr(module, "nearest_code", lambda *_: pytest.fail("searched for the nearest code"))
    noise = torch.randn(2, teacher.groups.length, teacher.codebook.shape[1])
    codes = sampling.sample(student, teacher.codebook, noise, torch.arange(2))
    assert codes.shape == noise.shape


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_modulation_once_per_image(guidance):
    teacher = tiny_teacher("var")
    transformer = teacher.get_submodule("transformer")
    calls: list[str] = []
    for name, module in transformer.named_modules():
        if name.startswith("blocks.") and name.endswith("ada_lin"):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    sample(teacher, torch.arange(2), Filters(guidance=guidance), torch.Generator().manual_seed(0))
    assert sorted(calls) == ["blocks.0.ada_lin", "blocks.1.ada_lin"]
