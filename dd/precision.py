"""Where bfloat16 is used: the transformers only, and only on machines that compute it natively.

On a CPU bf16 convolutions are about five times slower than float32, so tokenizers and extractors stay in float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Literal

import torch

Precision = Literal["bf16", "fp32", "auto"]


@lru_cache
def has_bf16(device: str = "cpu") -> bool:
    """Does this machine multiply bf16 matrices in hardware?"""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    if device == "cpu":
        capabilities = (
            torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends.cpu, "get_cpu_capability") else ""
        )
        return "AVX512" in capabilities and bool(torch.cpu._is_avx512_bf16_supported())
    return False


def autocast(precision: Precision, device: str = "cpu") -> AbstractContextManager:
    """A bf16 autocast region where `precision` asks for it ("auto": where the machine has it)."""
    wanted = precision == "bf16" or (precision == "auto" and has_bf16(device))
    return torch.autocast(device, dtype=torch.bfloat16) if wanted else nullcontext()
