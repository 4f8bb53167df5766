"""The map's evaluation as one fused kernel for accelerators: attention of y over the codes, with a bias.

`dd.flow.solver.Pool.derive` holds its reference, and what is used where this is not: on CPUs, without Triton, or with
codes wider than a tile. The kernel never writes the weights (N, V), which are all that the plain version spends its
time on: one pass over the codes accumulates the running maximum, the sum and the mean; a second one measures how many
codes still matter.
"""

from __future__ import annotations

import logging
import os
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger(__name__)

WIDEST = 128
TOKENS, CODES = 32, 64  # of one tile


def usable(x: Tensor) -> bool:
    """Whether the kernel runs on this tensor's device for vectors of its width (N, C)."""
    if x.shape[-1] + 1 > WIDEST or (x.device.type != "cuda" and not _interpreted()):
        return False
    return _works(x.device)


def _interpreted() -> bool:
    """Triton's interpreter runs kernels on a CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _works(device: torch.device) -> bool:
    """One small comparison with the plain version, once per process: a kernel that fails or differs is left out."""
    try:
        generator = torch.Generator().manual_seed(0)
        left, codes, log_probs = (torch.randn(*s, generator=generator).to(device) for s in ((5, 9), (70, 9), (5, 70)))
        moments, light = posterior_mean(left, log_probs, codes, 0.01)
        weights = torch.addmm(log_probs, left, codes.T).softmax(-1)
        good = torch.allclose(moments, weights @ codes, atol=1e-4, rtol=1e-4)
        good = good and torch.allclose(light, weights.clamp(max=0.01).sum(-1), atol=1e-4)
    except Exception as error:  # compilers fail in many ways, and none of them may stop the map
        log.warning("the fused kernel does not run here, the plain version does: %s", error)
        return False
    if not good:
        log.warning("the fused kernel disagrees with the plain version here, which is used instead")
    return good


def posterior_mean(left: Tensor, log_probs: Tensor, codes: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """w = softmax(log_probs + left codes^T) as its mean w codes (N, D), and sum of min(w, threshold) (N,).

    left (N, D), log_probs (N, V), codes (V, D), all float32 on one device.
    """
    import triton

    from dd.flow.kernel_triton import kernel

    count, width = left.shape
    moments, light = torch.empty_like(left), left.new_empty(count)
    padded = max(16, triton.next_power_of_2(width))  # products of tiles need sixteen columns
    left, log_probs, codes = left.contiguous(), log_probs.contiguous(), codes.contiguous()
    kernel[(triton.cdiv(count, TOKENS),)](
        left, log_probs, codes, moments, light, count, codes.shape[0], threshold, width, padded, TOKENS, CODES
    )
    return moments, light
