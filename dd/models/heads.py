"""Heads of the students: the continuous code, and two terms of the logits that see a position's own noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ContinuousHead(nn.Module):
    """The student's second head: LayerNorm without weights, shift and scale from the condition, Linear to a code."""

    def __init__(self, dim: int, code_dim: int) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.zeros(2, dim))
        self.linear = nn.Linear(dim, code_dim)

    def init_weights(self) -> None:
        """Normal 0.02 and zero bias."""
        nn.init.normal_(self.scale_shift_table, std=0.02)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """hidden (B, n, D) and the condition's embedding (B, 1, D) to codes (B, n, C), float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            shift, scale = (self.scale_shift_table + condition.float()).chunk(2, 1)  # (B, 1, D) each
            x = F.layer_norm(hidden.float(), hidden.shape[-1:], eps=1e-6)
            return self.linear(x * (1 + scale) + shift)


def _normed(hidden: Tensor) -> Tensor:
    """Hidden rows (B, n, D) of rms 1, float32.

    A trunk may leave them a hundred times as large, and a layer behind them then diverges within a few steps.
    """
    return F.rms_norm(hidden.float(), hidden.shape[-1:])


class NoiseLogits(nn.Module):
    """A term of the logits that is bilinear in a position's own noise and the codes: (x * (1 + gate(h))) . c_j.

    The noise-to-token map itself ends near argmax_j (log p_j + g e . c_j), which a trunk alone finds hard to learn.
    Not part of the official students.
    """

    def __init__(self, dim: int, code_dim: int, codes: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, code_dim)
        self.codes = nn.Linear(code_dim, codes, bias=False)

    def init_weights(self, codebook: Tensor | None = None, gain: float = 2.0) -> None:
        """No gate, and codes at `gain` times the codebook (V, C), or zero without one."""
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        with torch.no_grad():
            self.codes.weight.copy_(torch.zeros_like(self.codes.weight) if codebook is None else gain * codebook)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """x (B, n, C), hidden (B, n, D) to (B, n, V) float32."""
        with torch.autocast(x.device.type, enabled=False):
            return self.codes(x.float() * (1 + self.gate(_normed(hidden))))


class FlowLogits(nn.Module):
    """The noise-to-token map itself as the last layer: logits over codes become the posterior of a few Euler steps.

    With the teacher's log-probabilities as its input this is `dd.flow.map` on a coarse grid (the same y and r): it
    agrees with the exact map on far more tokens than the best bilinear term does (docs/findings.md). So the trunk has
    to learn what the teacher would predict, and not how noise picks a code. Steps, the noise's gain and how sure of it
    all the student is are learnt. Not part of the official students.
    """

    vectors: Tensor  # (V, C): the codebook, centred, of spread 1

    def __init__(self, dim: int, code_dim: int, codes: int, steps: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, code_dim)
        self.confidence = nn.Linear(dim, 1)
        self.log_steps = nn.Parameter(torch.zeros(steps))
        self.register_buffer("vectors", torch.zeros(codes, code_dim))

    def init_weights(self, codebook: Tensor | None = None) -> None:
        """No gate; steps that grow from 0.4 by a sixth each; zero codes without a codebook (V, C)."""
        for linear in (self.gate, self.confidence):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        # The map is sure of its code; a student that does not know the prefix is not, at first anywhere.
        nn.init.constant_(self.confidence.bias, math.log(0.25))
        with torch.no_grad():
            place = torch.arange(len(self.log_steps), device=self.log_steps.device)
            self.log_steps.copy_(math.log(0.4) + math.log(7 / 6) * place)
            if codebook is not None:
                centred = codebook - codebook.mean(0)
                self.vectors.copy_(centred / centred.square().sum(-1).mean().sqrt())

    def forward(self, x: Tensor, hidden: Tensor, logits: Tensor) -> Tensor:
        """x (B, n, C), hidden (B, n, D), logits (B, n, V) to logits (B, n, V), float32."""
        with torch.autocast(x.device.type, enabled=False):
            half_squares, hidden = self.vectors.square().sum(-1) / 2, _normed(hidden)
            logits, y = logits.float(), x.float() * (1 + self.gate(hidden))
            posterior, r = logits, torch.zeros((), device=x.device)
            for step in self.log_steps.exp():
                y = y + step * (posterior.softmax(-1) @ self.vectors)
                r = r + step
                posterior = logits + r * (y @ self.vectors.t()) - r * r * half_squares
            return posterior * self.confidence(hidden).exp()
