"""What a training step minimises: the paper's terms on the pairs and, beyond it, what the student itself draws.

`dd.distillation.training` owns the student, the optimizers and the checkpoints; here are the terms and the networks
they need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dd.config import DistillConfig, SecondPhaseConfig
from dd.distillation.frechet import MatchingLoss, straight_through
from dd.distillation.losses import LossWeights, distillation_loss
from dd.distillation.on_policy import (
    ConditionalScore,
    FakeScore,
    fake_score_loss,
    own_prefix_loss,
    own_tokens,
    score_loss,
    teacher_view,
)
from dd.distillation.perceptual import code_distance, recomputed, training_decoder
from dd.distillation.soft_targets import SoftTargets, soft_loss
from dd.distillation.task import Pairs, Task
from dd.errors import DDError
from dd.flow.map import Codes
from dd.models.base import Filters, StudentOutput
from dd.models.precision import autocast
from dd.sampling.samplers import known, perturb

Model = Callable[..., StudentOutput]


def check_timesteps(timesteps: tuple[int, ...], groups: int) -> None:
    """Raise DDError for trajectory points that the shards cannot give."""
    if max(timesteps) >= groups:
        raise DDError(
            f"timesteps: expected points below the teacher's {groups} groups, got {max(timesteps)}; "
            "each is a number of finished groups"
        )


def second_filters(filters: Filters, second: SecondPhaseConfig) -> Filters:
    """What the teacher of the second phase is sampled with; `filters` are those of the pairs."""
    return filters if second.guidance is None else replace(filters, guidance=second.guidance)


def trajectory_points(timesteps: tuple[int, ...], rows: int, first: int) -> Tensor:
    """(rows,) int64: the trajectory points of rows first, first + 1, ... of a run, in turn.

    The pairs are in random order already; in turn, the points have equal shares of every part of a batch.
    """
    return torch.tensor(timesteps)[(first + torch.arange(rows)) % len(timesteps)]


def student_input(task: Task, pairs: Pairs, finished: Tensor, codebook: Tensor) -> Tensor:
    """(B, L, C): the trajectory point `finished` (B,) of each pair."""
    noise = torch.zeros_like(pairs.noise) if task.noise_free else pairs.noise
    return perturb(codebook[pairs.tokens], noise, finished, task.teacher.groups)


def _as_they_are(codes: Tensor) -> Tensor:
    """The distance (`dd.distillation.perceptual`) takes codes and decodes them itself, a few images at a time."""
    return codes


class Objective:
    """The loss terms of a run. `parts` are those with state. causal: the student's (`dd.models.base.Student`)."""

    def __init__(self, task: Task, config: DistillConfig, accelerator: Accelerator, causal: bool = False) -> None:
        self.task, self.device, self.several = task, accelerator.device, accelerator.num_processes > 1
        self.causal, self.last_point = causal, max(config.timesteps)
        self.precision, self.own_prefix, self.soft = config.precision, config.losses.own_prefix, config.losses.soft
        self.second = config.second if config.second.steps else SecondPhaseConfig(pairs=1.0)
        self.weights = LossWeights(**config.losses.model_dump(include=set(LossWeights.__annotations__)))
        self.second_filters = second_filters(task.filters, self.second)
        self.teacher = task.teacher.to(self.device).eval().requires_grad_(False)
        self.codebook = self.teacher.codebook
        self.codes = Codes.prepare(self.codebook)
        scores = self.second.score or self.second.conditional_score
        self.bare_fake_score = FakeScore(self.teacher) if scores else None
        self.fake_score = None if self.bare_fake_score is None else accelerator.prepare(self.bare_fake_score)
        decode = training_decoder(self.teacher.tokenizer, config.precision, self.device.type)
        self.conditional_score = ConditionalScore() if self.second.conditional_score else None
        self.drawn = self.teacher.decode if self.device.type == "cpu" else recomputed(decode, config.decode_chunk)
        self.split = config.split if config.loss_split else None
        self.distance = None
        if task.distance is not None:
            self.distance = code_distance(decode, task.distance, config.decode_chunk)
        self.matching: MatchingLoss | None = None
        if self.second.frechet:
            assert task.picture_features is not None
            total = partial(accelerator.reduce, reduction="sum")
            self.matching = MatchingLoss(task.picture_features, config.timesteps, self.second.frechet_memory, total)

    def parts(self) -> dict[str, nn.Module]:
        """The objective's state that a checkpoint must contain, by name."""
        found = {
            "matching": self.matching,
            "fake_score": self.bare_fake_score,
            "conditional_score": self.conditional_score,
        }
        return {name: part for name, part in found.items() if part is not None}

    def warm_up(self, model: Model, pairs: Pairs, finished: Tensor) -> dict[str, Tensor]:
        """Loss of the fake score alone; the moments fill too. Neither moves the student yet.

        The fake score starts as the unguided teacher. Until it has learnt the student's own distribution, its ratio to
        the guided teacher would push the student beyond the guidance.
        """
        pairs, _ = self._follow(pairs, finished)
        if self.second.own_start:
            pairs = self._begun(model, pairs, finished)
        with torch.no_grad():
            output, unknown = self.predict(model, pairs, finished)
            self._frechet(output, pairs, unknown, finished)
        if self.fake_score is None:
            return {}
        own = own_tokens(output, pairs.tokens, unknown)
        with autocast(self.precision, self.device.type):
            learnt = self.fake_score(own, pairs.condition)
        return {"fake_score": fake_score_loss(learnt, own, unknown)}

    def _frechet(self, output: StudentOutput, pairs: Pairs, unknown: Tensor, finished: Tensor) -> Tensor:
        if self.matching is None:
            return torch.zeros((), device=self.device)
        return self.second.frechet * self.matching(self.drawn(self._vectors(output, pairs, unknown)), finished)

    def _vectors(self, output: StudentOutput, pairs: Pairs, unknown: Tensor) -> Tensor:
        """(B, L, C): the student's where a position is unknown, with its gradient; the pair's elsewhere."""
        return torch.where(unknown[..., None], straight_through(output, self.codebook), self.codebook[pairs.tokens])

    def terms(self, model: Model, pairs: Pairs, finished: Tensor, second: bool) -> tuple[dict[str, Tensor], Tensor]:
        """The loss terms, and a zero that keeps untrained heads in the graph of several processes."""
        pairs, soft = self._follow(pairs, finished)
        own_start = second and self.second.own_start
        if own_start:
            pairs = self._begun(model, pairs, finished)
        output, unknown = self.predict(model, pairs, finished)
        on_pairs = unknown & (finished == 0)[:, None] if own_start else unknown  # the others have left their pair
        terms = self._on_pairs(output, pairs.tokens, on_pairs)
        if soft is not None and self.soft:
            terms["soft"] = self.soft * soft_loss(output.logits, soft, on_pairs)
        if second:
            terms = {name: self.second.pairs * term for name, term in terms.items()}
        terms |= self._on_policy(output, pairs, unknown, second)
        if self.matching is not None and second:
            terms["frechet"] = self._frechet(output, pairs, unknown, finished)
        idle = torch.zeros((), device=self.device)
        if self.several and not (self.weights.cross_entropy or self.soft):
            idle = idle + 0 * output.logits.sum()
        if self.several and not (self.weights.regression or self.weights.perceptual):
            idle = idle + 0 * output.codes.sum()
        return terms, idle

    def _follow(self, pairs: Pairs, finished: Tensor) -> tuple[Pairs, SoftTargets | None]:
        """The pairs to train on: the teacher's, or those of the source student (`distill.source`)."""
        return (pairs, None) if self.task.follow is None else self.task.follow(pairs, finished)

    @torch.no_grad()
    def _begun(self, model: Model, pairs: Pairs, finished: Tensor) -> Pairs:
        """The pairs with the student's own tokens in the groups that are finished (B,): those of one evaluation."""
        groups, tokens = self.teacher.groups, pairs.tokens.clone()
        kept = groups.starts[self.last_point]
        end = kept if self.causal else groups.length
        with autocast(self.precision, self.device.type):
            logits = model(pairs.noise[:, :end], torch.zeros_like(finished), pairs.condition).logits
        begun = known(finished, groups)[:, :kept]
        tokens[:, :kept] = torch.where(begun, logits[:, :kept].argmax(-1), tokens[:, :kept])
        return replace(pairs, tokens=tokens)

    def _on_pairs(self, output: StudentOutput, tokens: Tensor, unknown: Tensor) -> dict[str, Tensor]:
        """The paper's terms; with loss_split the logits learn before the split and the continuous head after it."""

        def terms(where: Tensor, weights: LossWeights) -> dict[str, Tensor]:
            return distillation_loss(output, tokens, where, self.codebook, weights, _as_they_are, self.distance)

        if self.split is None:
            return terms(unknown, self.weights)
        before = self.teacher.groups.group_of_position(self.device) < self.split  # (L,)
        logits = terms(unknown & before, replace(self.weights, regression=0.0, perceptual=0.0))
        return logits | terms(unknown & ~before, replace(self.weights, cross_entropy=0.0, auxiliary=0.0))

    def _on_policy(self, output: StudentOutput, pairs: Pairs, unknown: Tensor, second: bool) -> dict[str, Tensor]:
        """The terms that need the teacher's view of the student's own tokens (`dd.distillation.on_policy`)."""
        task, own_prefix = self.task, self.own_prefix * (self.second.pairs if second else 1)
        if not (own_prefix or (second and self.fake_score is not None)):
            return {}
        own, terms = own_tokens(output, pairs.tokens, unknown), {}
        with autocast(self.precision, self.device.type):
            filters = self.second_filters if second else task.filters
            view = teacher_view(self.teacher, own, pairs.condition, filters)
        if own_prefix:
            loss = own_prefix_loss(output, pairs.noise, view, unknown, self.codes, task.solver)
            terms["own_prefix"] = own_prefix * loss
        if second and self.fake_score is not None:
            with autocast(self.precision, self.device.type):
                learnt = self.fake_score(own, pairs.condition)
            if self.second.score:
                terms["score"] = self.second.score * score_loss(output, view, learnt, unknown)
            if self.conditional_score is not None:
                vectors = self._vectors(output, pairs, unknown)
                loss = self.conditional_score(vectors, view, learnt, unknown, self.codebook)
                terms["conditional_score"] = self.second.conditional_score * loss
            terms["fake_score"] = fake_score_loss(learnt, own, unknown)
        return terms

    def predict(self, model: Model, pairs: Pairs, finished: Tensor) -> tuple[StudentOutput, Tensor]:
        """The model's output at trajectory points (B,), and which positions (B, L) are to be predicted."""
        x = student_input(self.task, pairs, finished, self.codebook)
        with autocast(self.precision, self.device.type):
            output = model(x, finished, pairs.condition)
        return output, ~known(finished, self.teacher.groups)
