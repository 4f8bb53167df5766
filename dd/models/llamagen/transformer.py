"""The trunk that LlamaGen's teacher and its DD student share: a Llama-style causal transformer with 2D RoPE.

Positions: T conditioning rows (1 for a class, 120 for a caption), then the tokens in raster order.
State-dict names are those of FoundationVision/LlamaGen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd.errors import DDError
from dd.models.attention import attend
from dd.models.base import Condition
from dd.models.cache import KVCache, Window
from dd.models.fused import Joined


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of the transformer. `block_size` is L, the tokens of one image; `codebook_dim` is for students only.

    attend_captions: conditioning rows keep their queries and keys (they are turned by no angle). Officially both
    vanish, and every row then sees nothing but the mean over the rows of a caption: small models learn less from that.
    """

    n_layer: int
    n_head: int
    dim: int
    vocab_size: int = 16384
    block_size: int = 256
    num_classes: int = 1000
    cls_token_num: int = 1
    model_type: str = "c2i"
    caption_dim: int = 2048
    codebook_dim: int = 8
    ffn_multiple: int = 256
    norm_eps: float = 1e-5
    attend_captions: bool = False

    def __post_init__(self) -> None:
        if self.model_type not in ("c2i", "t2i"):
            raise DDError(f"model_type: expected c2i (classes) or t2i (captions), got {self.model_type!r}")
        if math.isqrt(self.block_size) ** 2 != self.block_size:
            raise DDError(f"block_size: expected a square number of tokens, got {self.block_size}; use side * side")
        if self.dim % self.n_head or self.head_dim % 4:
            raise DDError(
                f"dim / n_head: expected a multiple of 4 (rows and columns in pairs), got {self.dim}/{self.n_head}"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.n_head

    @property
    def ffn_dim(self) -> int:
        """Hidden width of SwiGLU: the multiple of `ffn_multiple` at or above int(8 D / 3)."""
        return -(-int(2 * (4 * self.dim) / 3) // self.ffn_multiple) * self.ffn_multiple


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of some positions: cos and sin (n, head_dim / 2) float32, and both as one complex number.

    turn: (n, 1, 1, head_dim / 2) complex64.
    """

    cos: Tensor
    sin: Tensor
    turn: Tensor

    def at(self, start: int, count: int) -> Rope:
        """That of `count` positions from `start`."""
        here = slice(start, start + count)
        return Rope(self.cos[here], self.sin[here], self.turn[here])


@lru_cache(maxsize=16)
def rope_table(rows: int, side: int, head_dim: int, device: torch.device, keep: bool = False) -> Rope:
    """Of `rows` conditioning positions and side * side tokens.

    The first half of the pairs turns with the grid row, the second with the column. The conditioning positions have
    cos = sin = 0, which makes their queries and keys vanish: official behaviour. keep: cos = 1 there.
    """
    with torch.inference_mode(False):
        half = head_dim // 2
        frequency = 1.0 / 10000 ** (torch.arange(0, half, 2, device=device).float() / half)  # (half/2,)
        turns = torch.outer(torch.arange(side, device=device).float(), frequency)
        by_row = turns[:, None].expand(side, side, -1)
        by_column = turns[None].expand(side, side, -1)
        angle = torch.cat([by_row, by_column], -1).flatten(0, 1)  # (side * side, half)
        pad = (0, 0, rows, 0)
        cos, sin = F.pad(angle.cos(), pad, value=float(keep)), F.pad(angle.sin(), pad)
        return Rope(cos, sin, torch.complex(cos, sin)[:, None, None])


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Turn the interleaved pairs of x (B, n, .., H, head_dim) by the angles of the n positions, in float32.

    x is (B, n, 2, H, head_dim): queries and keys. Where no gradient is asked for, float32 is turned in place.
    """
    pairs = x.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # complex numbers do not compile
        even, odd = pairs.unbind(-1)
        cos, sin = rope.cos[:, None, None], rope.sin[:, None, None]
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2).type_as(x)
    turned = torch.view_as_complex(pairs)
    if x.dtype == torch.float32 and not torch.is_grad_enabled():
        turned.mul_(rope.turn)
        return x
    return torch.view_as_real(turned * rope.turn).flatten(-2).type_as(x)


class RMSNorm(nn.Module):
    """x / rms(x) in float32, cast back, then times the weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.shape = (dim,)
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.weight.dtype == torch.float32:
            return F.rms_norm(x, self.shape, self.weight, self.eps)
        return F.rms_norm(x.float(), self.shape, None, self.eps).type_as(x) * self.weight


class Attention(nn.Module):
    """Causal multi-head attention with RoPE and an optional key/value cache. No biases."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.n_head
        self.wqkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.wo = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, rope: Rope, causal: bool, mask: Tensor | None, window: Window | None) -> Tensor:
        qkv = F.linear(x, self.wqkv.weight).unflatten(-1, (3, self.heads, -1))  # (B, n, 3, H, hd)
        straight = qkv[:, :, :2]
        turned = rotate(straight, rope)  # (B, n, 2, H, hd)
        if window is not None:
            whole = qkv if turned is straight else torch.cat([turned, qkv[:, :, 2:]], 2)
            k, v = window.write(whole[:, :, 1:].permute(2, 0, 3, 1, 4))
            q = turned[:, :, 0].transpose(1, 2).to(k.dtype)
        else:
            q, k, v = (rows.transpose(1, 2) for rows in (*turned.unbind(2), qkv[:, :, 2]))  # (B, H, n, hd) each
        h = attend(q, k, v, mask, causal)
        return F.linear(h.transpose(1, 2).flatten(2), self.wo.weight)


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w2 = nn.Linear(config.ffn_dim, config.dim, bias=False)
        self.both = Joined((self.w1, self.w3))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.w2(F.silu(self.w1(x)) * self.w3(x))
        gate, value = F.linear(x, self.both.weight()).chunk(2, -1)
        return F.linear(F.silu(gate).mul_(value), self.w2.weight)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, x: Tensor, rope: Rope, causal: bool, mask: Tensor | None, window: Window | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope, causal, mask, window)
        return x + self.feed_forward(self.ffn_norm(x))


class LabelEmbedder(nn.Module):
    """Class indices (B,) to one conditioning row (B, 1, D). Index num_classes means "no class"."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(config.num_classes + 1, config.dim)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)[:, None]


class CaptionProjection(nn.Module):
    """fc2(gelu_tanh(fc1 x)), no biases."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.caption_dim, config.dim, bias=False)
        self.fc2 = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class CaptionEmbedder(nn.Module):
    """Captions to T conditioning rows (B, T, D). The rows of "no caption" are a buffer."""

    uncond_embedding: Tensor  # (T, caption_dim)

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.cap_proj = CaptionProjection(config)
        self.register_buffer("uncond_embedding", torch.zeros(config.cls_token_num, config.caption_dim))

    def forward(self, captions: Any) -> Tensor:
        return self.cap_proj(captions.states)


def visible_keys(caption_mask: Tensor, length: int) -> Tensor:
    """(B, length, length) bool, True where a query row may look at a key column.

    Causal; caption columns only where `caption_mask` (B, T) is set; the diagonal always, so that padded rows see
    themselves.
    """
    T = caption_mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=caption_mask.device).tril()
    columns = F.pad(caption_mask.bool(), (0, length - T), value=True)  # (B, length)
    return (causal & columns[:, None]) | torch.eye(length, dtype=torch.bool, device=causal.device)


class Trunk(nn.Module):
    """Everything but the token embedding; teacher and student add theirs."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_embedding: LabelEmbedder | CaptionEmbedder
        self.cls_embedding = LabelEmbedder(config) if config.model_type == "c2i" else CaptionEmbedder(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)

    def run(self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Input rows (B, n, D) to hidden rows (B, n, D), before the final norm.

        cache: what is behind them; the rows are its next positions. mask: (B, n, keys) bool. Without one: causal from
        position 0; behind a cache one row that sees all of it.
        """
        config, start = self.config, 0 if cache is None else cache.filled
        side = math.isqrt(config.block_size)
        table = rope_table(config.cls_token_num, side, config.head_dim, x.device, config.attend_captions)
        rope, causal = table.at(start, x.shape[1]), mask is None and start == 0
        rows = None if mask is None else mask[:, None]
        windows = [None] * len(self.layers) if cache is None else cache.extend(x.shape[1])
        for block, window in zip(self.layers, windows, strict=True):
            x = block(x, rope, causal, rows, window)
        return x

    def head(self, hidden: Tensor) -> Tensor:
        """(B, n, D) to logits (B, n, V) float32."""
        return self.output(self.norm(hidden)).float()

    def attention_mask(self, condition: Condition, length: int) -> Tensor | None:
        """(B, length, length) bool for captions, None (plain causal) for classes."""
        return None if self.config.model_type == "c2i" else visible_keys(condition.mask, length)

    def init_weights(self) -> None:
        """Weights to start training from: normal 0.02, residual branches scaled down by depth, zero output."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                branch = name.endswith(("wo.weight", "w2.weight"))
                std = 0.02 / math.sqrt(2 * self.config.n_layer) if branch else 0.02
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.zeros_(self.output.weight)
        if isinstance(self.cls_embedding, CaptionEmbedder):
            nn.init.normal_(self.cls_embedding.uncond_embedding, std=self.config.caption_dim**-0.5)
