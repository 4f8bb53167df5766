"""Whole models (`dd.api.Model`) with random weights, of every kind of condition."""

import pytest
import torch

from dd.api import Model
from dd.flow.grid import Solver
from dd.models.base import Filters
from dd.models.registry import build_student, build_teacher, student_config
from dd.text import encoders as text_encoder
from tests.helpers.tiny import tiny_student, tiny_teacher
from tests.helpers.tiny_text import CODES, GPT, write_archive

KINDS = ("llamagen", "var", "text")
FACTS = {"licence": "MIT", "teacher_name": "tiny", "provenance": {"steps": 12, "settings": {"timesteps": [0, 2]}}}


def tiny_model(kind: str, **more) -> Model:
    """kind: llamagen or var (classes), text (prompts; needs `use_tiny_encoder`)."""
    torch.manual_seed(0)
    if kind == "text":
        teacher = build_teacher("llamagen", CODES, GPT).eval().requires_grad_(False)
        for parameter in teacher.get_submodule("transformer").parameters():
            parameter.normal_(std=0.3)
        student = build_student("llamagen", student_config(teacher, noise_logits=True))
        student.initialise_from(teacher)
        facts = {"classes": (), "text_encoder": "all-minilm-l6-v2"}
    else:
        teacher = tiny_teacher(kind)
        student = tiny_student(teacher, kind, teacher_input=True, noise_logits=True)
        facts = {"classes": ("hat", "shoe", "bag")}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    made = {"filters": Filters(guidance=1.5), "solver": Solver(), "timesteps": (0, 2), **FACTS, **facts, **more}
    return Model("toy", teacher, student.eval().requires_grad_(False), **made)


@pytest.fixture
def tiny_encoder(tmp_path, monkeypatch):
    """The text encoder that `text` models name, with random weights."""
    pytest.importorskip("transformers", reason='the extra "text" is not installed')
    encoder = text_encoder.read_minilm(write_archive(tmp_path / "model.zip"))
    monkeypatch.setattr(text_encoder, "_open", lambda name: encoder)
    return encoder


def conditions(kind: str) -> dict:
    """What `Model.sample` is asked to draw."""
    return {"prompts": ["a red boot", "two bags"]} if kind == "text" else {"classes": ["shoe", "hat"]}
