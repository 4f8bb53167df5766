"""Attention as every model here calls it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(scale q k^T + mask) v for q (B, H, n, d), k and v (B, H, m, d); scale None means d ** -0.5.

    PyTorch's bfloat16 attention on a CPU has a backward pass that is 5 times slower than the float32 one (more than
    half of a small transformer's training step), so there gradients take the float32 kernel.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        mask = mask.float() if mask is not None and mask.is_floating_point() else mask
        with torch.autocast("cpu", enabled=False):
            wide = F.scaled_dot_product_attention(
                q.float(), k.float(), v.float(), attn_mask=mask, is_causal=causal, scale=scale
            )
        return wide.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
