"""Convolutional blocks that the tokenizers of both families share (the lineage is VQGAN).

Both families use these names in their state dicts: norm1, conv1, norm2, conv2, nin_shortcut, conv.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd.errors import DDError

GROUPS = 32


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 32 groups, eps 1e-6."""
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResBlock(nn.Module):
    """(B, c_in, h, w) to (B, c_out, h, w): two norm-SiLU-conv steps and a shortcut."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1 = group_norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = group_norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.nin_shortcut = nn.Conv2d(c_in, c_out, 1)
        self.same_width = c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.same_width else self.nin_shortcut(x))


class Downsample(nn.Module):
    """Halve the resolution; the padding is on the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the resolution: nearest neighbour, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def attend_over_pixels(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Single-head attention between the pixels of feature maps (B, c, h, w), scale c ** -0.5."""
    q_rows, k_rows, v_rows = (m.flatten(2).transpose(1, 2).unsqueeze(1) for m in (q, k, v))  # (B, 1, h*w, c)
    mixed = F.scaled_dot_product_attention(q_rows, k_rows, v_rows)
    return mixed.squeeze(1).transpose(1, 2).reshape(q.shape)


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
    """Hidden rows (B, n, D) of rms 1, float32. As a trunk leaves them they may be a hundred times as large, and a layer
    behind them then blows up within a few steps.
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


def copy_weights(source: nn.Module, target: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Copy the source's tensors whose names start with one of the prefixes; names and shapes must agree."""
    theirs, ours = source.state_dict(), target.state_dict()
    for name, tensor in theirs.items():
        if not name.startswith(prefixes):
            continue
        if name not in ours or ours[name].shape != tensor.shape:
            got = tuple(ours[name].shape) if name in ours else "no such tensor"
            raise DDError(
                f"initialise_from: expected the teacher's {name} {tuple(tensor.shape)} in the student, got {got}; "
                "give the student the teacher's depth and width"
            )
        ours[name].copy_(tensor)


def copy_blocks(source: nn.ModuleList, target: nn.ModuleList) -> None:
    """Copy blocks; a shallower target takes evenly spaced ones, the first and the last included."""
    deep, shallow = len(source), len(target)
    if shallow > deep:
        raise DDError(f"initialise_from: expected at most the teacher's {deep} layers, got {shallow}; use fewer")
    for i, block in enumerate(target):
        copy_weights(source[round(i * (deep - 1) / max(shallow - 1, 1))], block, ("",))


def store_in_bf16(model: nn.Module) -> None:
    """Keep the matrices that autocast runs in bfloat16 (blocks, LlamaGen's output layer) in it, for decoding.

    Autocast would convert frozen float32 matrices again in every step. Everything that is float32 officially
    (embeddings, VAR's head, tokenizer) stays so.
    """
    for name, module in model.named_modules():
        inside = any(part in ("blocks", "layers", "layerwise_n_d_embed", "output") for part in name.split("."))
        if inside and isinstance(module, nn.Linear) and not name.startswith("tokenizer."):
            module.to(torch.bfloat16)


def module_device(module: nn.Module) -> torch.device:
    """The device that a module's parameters are on."""
    return next(module.parameters()).device
