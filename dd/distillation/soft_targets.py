"""Distributions of another student as targets (Hinton et al. 2015), kept sparse."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dd.distillation.losses import mean_over


@dataclass(frozen=True)
class SoftTargets:
    """Sparse distributions: the likeliest codes (..., k) int32 and their log-probabilities (..., k) float16."""

    codes: Tensor
    log_probs: Tensor

    @staticmethod
    def of(logits: Tensor, kept: int = 32) -> SoftTargets:
        """The `kept` likeliest codes of logits (..., V), with probabilities scaled up to a sum of 1."""
        values, codes = logits.float().topk(min(kept, logits.shape[-1]))
        return SoftTargets(codes.int(), values.log_softmax(-1).half())

    @staticmethod
    def bytes_per_token(codes: int, kept: int = 32) -> int:
        """What one of them takes, for a codebook of so many codes."""
        return min(kept, codes) * 6


def soft_loss(logits: Tensor, targets: SoftTargets, unknown: Tensor) -> Tensor:
    """Mean over unknown positions (B, L) of KL(targets || softmax(logits (B, L, V))), in nats."""
    theirs = targets.log_probs.float()
    mine = logits.float().log_softmax(-1).gather(-1, targets.codes.long())
    return mean_over((theirs.exp() * (theirs - mine)).sum(-1), unknown)
