"""What the teacher says about the student's own tokens: two loss terms beyond the paper.

Late in a sequence a few-step student has left the trajectory, and the tokens of the pair are no longer what the teacher
would draw after the tokens that the student has predicted. One parallel pass of the teacher over the student's tokens
gives what it would draw, which is used in two ways:

own_prefix  cross-entropy against the tokens that the *same noise* leads to after the student's own tokens
            (an on-policy target, as in DAgger, Ross et al. 2011). The true trajectory is its fixed point, and since
            the noise picks the token, nothing pulls towards a mode.
score       a discrete form of distribution matching (Yin et al. 2023): a second network, the fake score, starts as
            the teacher and learns the student's tokens; the student moves towards what the teacher finds likelier than
            the fake score does, -sum_v pi_v clip(log p_teacher(v) - log p_fake(v)).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd.distillation.losses import cross_entropy, mean_over
from dd.flow.grid import Solver
from dd.flow.map import Codes, map_noise
from dd.models.base import Condition, Filters, StudentOutput, Teacher

# Bound of a log-ratio (nats): filtered codes have -inf, and single codes must not rule a step.
CLIP = 3.0


class FakeScore(nn.Module):
    """The teacher's network once more, trained on the student's tokens. Shares the teacher's tokenizer."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        tokenizer = teacher.tokenizer
        self.network = copy.deepcopy(teacher, {id(tokenizer): tokenizer})
        self.network.get_submodule("transformer").requires_grad_(True)

    def forward(self, tokens: Tensor, condition: Condition) -> Tensor:
        """(B, L, V) float32 log-probabilities of every token given the groups before it."""
        return self.network.logits(tokens, condition).float().log_softmax(-1)


def own_tokens(output: StudentOutput, tokens: Tensor, unknown: Tensor) -> Tensor:
    """(B, L): what the student gives out where a position is unknown, the pair's tokens elsewhere."""
    return torch.where(unknown, output.logits.argmax(-1), tokens)


@torch.no_grad()
def teacher_view(teacher: Teacher, own: Tensor, condition: Condition, filters: Filters) -> Tensor:
    """(B, L, V) float32 log-probabilities of the guided, filtered teacher behind the student's tokens (B, L)."""
    return teacher.score(own, condition, filters).float()


def own_prefix_loss(
    output: StudentOutput, noise: Tensor, view: Tensor, unknown: Tensor, codes: Codes, solver: Solver | None
) -> Tensor:
    """Mean cross-entropy against the tokens that the noise (B, L, C) leads to under `view` (B, L, V)."""
    wanted = map_noise(noise.flatten(0, 1), view.flatten(0, 1), codes, solver).tokens.view(unknown.shape)
    return cross_entropy(output.logits, wanted, unknown)


def score_loss(output: StudentOutput, view: Tensor, fake_score: Tensor, unknown: Tensor) -> Tensor:
    """The student's term.

    view, fake_score: (B, L, V) log-probabilities of the teacher and of the fake score, given the student's own tokens.
    """
    ratio = (view - fake_score.detach()).clamp(-CLIP, CLIP)
    return mean_over(-(output.logits.float().softmax(-1) * ratio).sum(-1), unknown)


def fake_score_loss(fake_score: Tensor, own: Tensor, unknown: Tensor) -> Tensor:
    """The fake score's cross-entropy against the student's tokens (B, L)."""
    learnt = F.nll_loss(fake_score.flatten(0, 1), own.flatten(), reduction="none").view(own.shape)
    return mean_over(learnt, unknown)
