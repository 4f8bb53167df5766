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
from dd.models.cache import KVCache


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


@lru_cache(maxsize=16)
def rope_table(rows: int, side: int, head_dim: int, device: torch.device, keep: bool = False) -> tuple[Tensor, Tensor]:
    """cos and sin, each (rows + side * side, head_dim / 2), float32.

    The first half of the pairs turns with the grid row, the second with the column. The `rows` conditioning
    positions have cos = sin = 0, which makes their queries and keys vanish: official behaviour. keep: cos = 1 there.
    """
    with torch.inference_mode(False):
        half = head_dim // 2
        frequency = 1.0 / 10000 ** (torch.arange(0, half, 2, device=device).float() / half)  # (half/2,)
        turns = torch.outer(torch.arange(side, device=device).float(), frequency)
        by_row = turns[:, None].expand(side, side, -1)
        by_column = turns[None].expand(side, side, -1)
        angle = torch.cat([by_row, by_column], -1).flatten(0, 1)  # (side * side, half)
        pad = (0, 0, rows, 0)
        return F.pad(angle.cos(), pad, value=float(keep)), F.pad(angle.sin(), pad)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the interleaved pairs of x (B, H, n, head_dim) by the angles (n, head_dim / 2), in float32."""
    pairs = x.float().unflatten(-1, (-1, 2))
    if not torch.compiler.is_compiling():  # one complex product: 3 times faster than what follows, and the same bits
        turned = torch.view_as_complex(pairs.contiguous()) * torch.complex(cos, sin)
        return torch.view_as_real(turned).flatten(-2).type_as(x)
    even, odd = pairs.unbind(-1)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2).type_as(x)


class RMSNorm(nn.Module):
    """x / rms(x) in float32, cast back, then times the weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        unit = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        return unit.type_as(x) * self.weight


class Attention(nn.Module):
    """Causal multi-head attention with RoPE and an optional key/value cache. No biases."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.n_head
        self.wqkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.wo = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], start: int, mask: Tensor | None, cache: KVCache | None):
        q, k, v = self.wqkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, n, hd) each
        q, k = rotate(q, *rope), rotate(k, *rope)
        if cache is not None:
            k, v = cache.write(start, k, v)
            q = q.to(k.dtype)
        causal = mask is None and start == 0
        h = attend(q, k, v, mask, causal)
        return self.wo(h.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w2 = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], start: int, mask: Tensor | None, cache: KVCache | None):
        x = x + self.attention(self.attention_norm(x), rope, start, mask, cache)
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

    def run(self, x: Tensor, start: int = 0, mask: Tensor | None = None, caches: list[KVCache] | None = None) -> Tensor:
        """Input rows (B, n, D) at positions start.. to hidden rows (B, n, D), before the final norm.

        mask: (B, n, keys) bool. Without one: causal from position 0; behind a cache one row that sees all of it.
        """
        config = self.config
        side = math.isqrt(config.block_size)
        table = rope_table(config.cls_token_num, side, config.head_dim, x.device, config.attend_captions)
        rope = (table[0][start : start + x.shape[1]], table[1][start : start + x.shape[1]])
        rows = None if mask is None else mask[:, None]
        for i, block in enumerate(self.layers):
            x = block(x, rope, start, rows, None if caches is None else caches[i])
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
