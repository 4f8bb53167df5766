"""The terms of the loss: which positions and heads each of them trains."""

import math

import pytest
import torch
from accelerate import Accelerator

from dd.config import SecondPhaseConfig
from dd.distillation.objective import Objective, second_filters, trajectory_points
from dd.distillation.on_policy import teacher_view
from dd.distillation.training import train
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.models.base import Filters, StudentOutput
from dd.sampling.samplers import sample
from tests.helpers.small.training import make_task, weights
from tests.helpers.tiny import settings, tiny_student


def test_loss_split_gives_each_head_its_part(family, teacher, pairs, tmp_path):
    """Cross-entropy before the split only, regression behind it only: heads get no gradient elsewhere."""
    config = settings(steps=1, split=2, loss_split=True, losses={"regression": 1.0}, timesteps=(0,))
    task = make_task(teacher, pairs, tmp_path)
    objective = Objective(task, config, Accelerator(cpu=True))
    before = teacher.groups.starts[2]
    output = StudentOutput(
        torch.zeros(4, teacher.groups.length, len(teacher.codebook)).requires_grad_(),
        torch.zeros(4, teacher.groups.length, teacher.codebook.shape[1]).requires_grad_(),
    )
    unknown = torch.ones(4, teacher.groups.length, dtype=torch.bool)
    unknown[:, 0] = False
    terms = objective._on_pairs(output, pairs.tokens[:4], unknown)
    sum(terms.values()).backward()
    assert terms["cross_entropy"].item() == pytest.approx(math.log(len(teacher.codebook)))
    positions = torch.arange(teacher.groups.length)
    assert torch.equal(output.logits.grad.abs().sum((0, 2)) > 0, (positions > 0) & (positions < before))
    assert torch.equal(output.codes.grad.abs().sum((0, 2)) > 0, positions >= before)


def test_points_have_equal_shares_however_a_batch_is_divided():
    whole = trajectory_points((0, 3, 5), 12, 24)
    assert whole.tolist() == [0, 3, 5] * 4
    parts = [trajectory_points((0, 3, 5), 4, first) for first in (24, 28, 32)]
    assert torch.equal(torch.cat(parts), whole)


def test_perceptual_and_regression_losses_train_the_continuous_head(family, teacher, pairs, tmp_path):
    size = teacher.tokenizer.image_size
    network = SmallClassifier(ClassifierConfig(3, size, (4, 5), (0, 0))).eval().requires_grad_(False)
    losses = {"cross_entropy": 0.0, "regression": 1.0, "perceptual": 1.0}
    task = make_task(teacher, pairs, tmp_path, distance=network.perceptual_distance)
    student = tiny_student(teacher, family)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    config = settings(steps=40, lr=1e-2, losses=losses, log_every=5)
    outcome = train(student, task, config)
    moved = {name for name, value in weights(outcome).items() if not torch.equal(value, before[name])}
    assert any(name.startswith("final_layer_conti.") for name in moved) or any("conti" in name for name in moved)
    assert not any(name.startswith(("output.", "head.")) for name in moved)
    for term in ("regression", "perceptual"):
        values = [value for _, value in outcome.curves[f"loss/{term}"]]
        assert values[-1] < values[0]


def test_a_set_predictor_sees_no_noise(family, teacher, pairs, tmp_path):
    student, seen = tiny_student(teacher, family), []
    student.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0].clone(), inputs[1].clone())))
    train(student, make_task(teacher, pairs, tmp_path, noise_free=True), settings(steps=1))
    for x, finished in seen:
        for row, groups in zip(x, finished, strict=True):
            assert row[teacher.groups.starts[groups] :].abs().sum() == 0
            assert bool(row.any()) == bool(groups)


def test_the_second_phase_may_aim_at_another_guidance(family, teacher, pairs, tmp_path, monkeypatch):
    seen = []

    def view(teacher, own, condition, filters):
        seen.append(filters.guidance)
        return teacher_view(teacher, own, condition, filters)

    monkeypatch.setattr("dd.distillation.objective.teacher_view", view)
    task = make_task(teacher, pairs, tmp_path, filters=Filters(guidance=2.0))
    second = {"steps": 2, "warmup": 1, "score": 1.0, "guidance": 1.25}
    train(tiny_student(teacher, family), task, settings(steps=2, losses={"own_prefix": 0.5}, second=second))
    assert seen == [2.0, 2.0, 1.25]  # two steps, one that warms up without it, one
    other = second_filters(Filters(guidance=2.0, top_k=3), SecondPhaseConfig(guidance=1.25))
    assert other == Filters(guidance=1.25, top_k=3)
    assert second_filters(other, SecondPhaseConfig()) == other


@pytest.mark.parametrize("causal", [True, False])
def test_later_points_can_begin_with_the_students_own_tokens(family, teacher, pairs, tmp_path, causal):
    student, codebook, point = tiny_student(teacher, family).eval(), teacher.codebook, 2
    config = settings(timesteps=[0, point], second={"steps": 2, "warmup": 1, "score": 1.0, "own_start": True})
    objective = Objective(make_task(teacher, pairs, tmp_path), config, Accelerator(cpu=True), causal)
    finished = torch.tensor([0, point]).repeat(len(pairs))[: len(pairs)]
    found = objective._begun(student, pairs, finished)
    kept = teacher.groups.starts[point]
    own = sample(student, codebook, pairs.noise, pairs.condition, (0,), until=point)
    later = finished == point
    assert torch.equal(codebook[found.tokens[later, :kept]], own[later])
    assert torch.equal(found.tokens[~later], pairs.tokens[~later])
    assert torch.equal(found.tokens[:, kept:], pairs.tokens[:, kept:])
    terms, _ = objective.terms(student, pairs, torch.full_like(finished, point), second=True)
    assert terms["cross_entropy"] == 0  # its pair is no longer what the student should draw
