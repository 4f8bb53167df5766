"""What the teacher says about the student's own tokens: three loss terms beyond the paper.

Late in a sequence a few-step student has left the trajectory, and the tokens of the pair are no longer what the teacher
would draw after the tokens that the student has predicted. One parallel pass of the teacher over the student's tokens
gives what it would draw, which is used in three ways:

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
from dd.flow.map import Codes, map_noise, posterior
from dd.models.base import Condition, Filters, StudentOutput, Teacher

# Bound of a log-ratio (nats): filtered codes have -inf, and single codes must not rule a step.
CLIP = 3.0
# Times t at which code vectors are compared: 0 is noise, at 1 the vector itself is left.
TIMES = (0.02, 0.98)


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


class ConditionalScore(nn.Module):
    """The student's term in code space. Its one buffer counts calls, so that a resumed run draws the same noise."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, drawn: Tensor, view: Tensor, fake_score: Tensor, unknown: Tensor, codebook: Tensor) -> Tensor:
        """drawn: (B, L, C) the student's vectors, with its gradient. view, fake_score: as for `score_loss`.

        With x_t = (1-t) e + t q the scores differ by t (m_fake - m_teacher) / (1-t)^2, where m is the posterior mean.
        Every t counts alike, and an image's difference is divided by its mean distance to the teacher's posterior
        means, as in distribution matching (Yin et al. 2023).
        """
        generator = torch.Generator(drawn.device).manual_seed(int(self.calls))
        self.calls += 1
        with torch.no_grad():
            q = drawn.flatten(0, 1).float()
            noise = torch.randn(q.shape, generator=generator, device=q.device)
            t = torch.empty(len(q), device=q.device).uniform_(*TIMES, generator=generator)
            x = torch.lerp(noise, q, t[:, None])
            teacher = posterior(x, t, view.flatten(0, 1), codebook)[1]
            student = posterior(x, t, fake_score.flatten(0, 1), codebook)[1]
            away = (q - teacher).norm(dim=-1).view(unknown.shape)
            size = (away * unknown).sum(1) / unknown.sum(1).clamp_min(1)
            push = (student - teacher).view_as(drawn) / size.clamp_min(1e-6)[:, None, None]
            aim = drawn - push
        return mean_over((drawn - aim).square().sum(-1) / 2, unknown)


def fake_score_loss(fake_score: Tensor, own: Tensor, unknown: Tensor) -> Tensor:
    """The fake score's cross-entropy against the student's tokens (B, L)."""
    learnt = F.nll_loss(fake_score.flatten(0, 1), own.flatten(), reduction="none").view(own.shape)
    return mean_over(learnt, unknown)
