"""The trunk that VAR's teacher and its DD student share: a transformer with AdaLN and l2-normalised attention.

State-dict names, buffers included, are those of FoundationVision/VAR.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd.errors import DDError
from dd.models.attention import attend
from dd.models.cache import Window

MAX_LOG_SCALE = math.log(100)


@dataclass(frozen=True)
class VARConfig:
    """Sizes of the transformer. Official models: embed_dim = 64 * depth, num_heads = depth."""

    depth: int
    embed_dim: int
    num_heads: int
    num_classes: int = 1000
    vocab_size: int = 4096
    codebook_dim: int = 32
    patch_nums: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_nums", tuple(self.patch_nums))
        if self.embed_dim % self.num_heads:
            raise DDError(f"embed_dim: expected a multiple of num_heads {self.num_heads}, got {self.embed_dim}")
        if self.patch_nums[0] != 1:
            raise DDError(f"patch_nums: expected the first scale to be 1 (the class token), got {self.patch_nums}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embed_dim // self.num_heads


class SelfAttention(nn.Module):
    """Multi-head attention with l2-normalised queries and keys and a learnt scale per head."""

    zero_k_bias: Tensor

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0)))
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("zero_k_bias", torch.zeros(dim))
        self.mat_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def constants(self) -> tuple[Tensor, Tensor]:
        """What depends on weights alone: the bias (3 D) of queries, keys and values, the scale (H, 1) of queries."""
        bias = torch.cat([self.q_bias, self.zero_k_bias, self.v_bias])
        return bias, self.scale_mul_1H11.clamp(max=MAX_LOG_SCALE).exp()[0, :, 0]

    def forward(
        self,
        x: Tensor,
        constants: tuple[Tensor, Tensor],
        mask: Tensor | None,
        window: Window | None,
    ) -> Tensor:
        """x (B, n, D) to (B, n, D). constants: `self.constants()`. mask: (1, 1, n, n) additive."""
        bias, scale = constants
        qkv = F.linear(x, self.mat_qkv.weight, bias).unflatten(-1, (3, self.heads, -1))  # (B, n, 3, H, head_dim)
        straight = qkv[:, :, :2]
        unit = normalised(straight)
        q = (unit[:, :, 0] * scale).to(qkv.dtype).transpose(1, 2)  # (B, H, n, head_dim)
        if window is not None:
            whole = qkv if unit is straight else torch.cat([unit.to(qkv.dtype), qkv[:, :, 2:]], 2)
            k, v = window.write(whole[:, :, 1:].permute(2, 0, 3, 1, 4))
            q = q.to(k.dtype)
        else:
            k, v = unit[:, :, 1].to(qkv.dtype).transpose(1, 2), qkv[:, :, 2].transpose(1, 2)
        h = attend(q, k, v, None if mask is None else mask.to(q.dtype), scale=1.0)
        return F.linear(h.transpose(1, 2).flatten(2), self.proj.weight, self.proj.bias)


def normalised(x: Tensor) -> Tensor:
    """Rows of the last dimension at length 1; in place where no gradient is asked for and x is float32."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)
    return x / length if torch.is_grad_enabled() or x.dtype != torch.float32 else x.div_(length)


class FFN(nn.Module):
    """fc2(gelu_tanh(fc1 x))."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(F.linear(x, self.fc1.weight, self.fc1.bias), approximate="tanh")
        return F.linear(hidden, self.fc2.weight, self.fc2.bias)


def _modulation(dim: int, vectors: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(dim, vectors * dim))


class Prepared(NamedTuple):
    """What a block makes of the class vectors, (B, 1, D) each, and of its weights: the same for every scale."""

    gamma1: Tensor
    gamma2: Tensor
    scale1: Tensor  # one more than the layer gives
    scale2: Tensor
    shift1: Tensor
    shift2: Tensor
    attention: tuple[Tensor, Tensor]  # `SelfAttention.constants`


class Block(nn.Module):
    """AdaLN block; the modulation's order is gamma1, gamma2, scale1, scale2, shift1, shift2."""

    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.attn = SelfAttention(config.embed_dim, config.num_heads)
        self.ffn = FFN(config.embed_dim, round(config.embed_dim * config.mlp_ratio))
        self.ada_lin = _modulation(config.embed_dim, 6)

    def prepare(self, cond: Tensor) -> Prepared:
        """From class vectors (B, D)."""
        gamma1, gamma2, scale1, scale2, shift1, shift2 = self.ada_lin(cond)[:, None].chunk(6, -1)
        return Prepared(gamma1, gamma2, scale1 + 1, scale2 + 1, shift1, shift2, self.attn.constants())

    def forward(
        self,
        x: Tensor,
        cond: Tensor,
        mask: Tensor | None,
        window: Window | None = None,
        extra: Tensor | None = None,
        prepared: Prepared | None = None,
    ) -> Tensor:
        """extra (B, n, D) is added between attention and feed-forward (the student's noise-or-data embedding).

        prepared: `self.prepare(cond)`; pass it when calling repeatedly with the same classes.
        """
        p = self.prepare(cond) if prepared is None else prepared
        h = torch.addcmul(p.shift1, plain_norm(x, self.eps), p.scale1)
        x = torch.addcmul(x, p.gamma1, self.attn(h, p.attention, mask, window))
        if extra is not None:
            x = x + extra
        h = torch.addcmul(p.shift2, plain_norm(x, self.eps), p.scale2)
        return torch.addcmul(x, p.gamma2, self.ffn(h))


class HeadNorm(nn.Module):
    """LayerNorm without weights, then scale and shift (in this order) from the class."""

    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.ada_lin = _modulation(config.embed_dim, 2)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        scale, shift = self.ada_lin(cond)[:, None].chunk(2, -1)
        return torch.addcmul(shift, plain_norm(x, self.eps), scale + 1)


def plain_norm(x: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last dimension without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=eps)


class Trunk(nn.Module):
    """Embeddings, blocks and the logits head over levels of `sides` x `sides` positions.

    strict: a position sees strictly lower levels and itself (student); otherwise all levels up to its own (teacher).
    """

    lvl_1L: Tensor  # noqa: N815
    attn_bias_for_masking: Tensor

    def __init__(self, config: VARConfig, sides: tuple[int, ...], strict: bool) -> None:
        super().__init__()
        self.config = config
        D = config.embed_dim
        levels = torch.cat([torch.full((side * side,), i) for i, side in enumerate(sides)])
        length = len(levels)
        self.pos_start = nn.Parameter(torch.zeros(1, 1, D))
        self.pos_1LC = nn.Parameter(torch.zeros(1, length, D))
        self.register_buffer("lvl_1L", levels[None])
        self.register_buffer("attn_bias_for_masking", visible_bias(levels, strict)[None, None])
        self.word_embed = nn.Linear(config.codebook_dim, D)
        self.class_emb = nn.Embedding(config.num_classes + 1, D)
        self.lvl_embed = nn.Embedding(len(sides), D)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head_nm = HeadNorm(config)
        self.head = nn.Linear(D, config.vocab_size)

    def embed(self, rows: Tensor, start: int) -> Tensor:
        """Code-space rows (B, n, C) at positions start.. to input rows (B, n, D), float32."""
        with torch.autocast(rows.device.type, enabled=False):
            return self.word_embed(rows.float()) + self.places(start, rows.shape[1])

    def class_rows(self, cond: Tensor) -> Tensor:
        """Class vectors (B, D) to the first position's input row (B, 1, D)."""
        return cond[:, None] + self.pos_start + self.places(0, 1)

    def places(self, start: int, count: int) -> Tensor:
        """(1, count, D): level and position embeddings of positions start.."""
        here = slice(start, start + count)
        return self.lvl_embed(self.lvl_1L[:, here]) + self.pos_1LC[:, here]

    def logits_head(self, hidden: Tensor, cond: Tensor) -> Tensor:
        """(B, n, D) to logits (B, n, V), in float32 whatever autocast says."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(self.head_nm(hidden.float(), cond.float()))

    def init_weights(self) -> None:
        """Weights to start training from, as VAR does: small gates, a small head, branches scaled by depth."""
        std = math.sqrt(1 / self.config.embed_dim / 3)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 or name in ("pos_start", "pos_1LC"):
                nn.init.trunc_normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        gates = 2 * self.config.embed_dim
        with torch.no_grad():
            self.head.weight.mul_(0.02)
            for name, weight in self.named_parameters():
                if name.endswith("ada_lin.1.weight"):
                    weight.mul_(0.5)
                if name.startswith("blocks.") and name.endswith("ada_lin.1.weight"):
                    weight[:gates].mul_(2e-5)
                if name.endswith(("attn.proj.weight", "ffn.fc2.weight")):
                    weight.div_(math.sqrt(2 * self.config.depth))


def visible_bias(levels: Tensor, strict: bool) -> Tensor:
    """(L, L) float: 0 where the row's position may look at the column's, -inf elsewhere."""
    query, key = levels[:, None], levels[None]
    allowed = (query > key) | torch.eye(len(levels), dtype=torch.bool, device=levels.device) if strict else query >= key
    return torch.zeros(allowed.shape, device=levels.device).masked_fill(~allowed, float("-inf"))
