"""Where bfloat16 is used: in training, and in transformers, on machines that compute it natively.

On a CPU bf16 gains where convolutions are followed by BatchNorm in channels_last (the extractor: 3.5 times), and loses
in the tokenizers with their GroupNorm (0.6 times, measured), which stay in float32. So does everything that
measures.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Literal

import torch
from torch import nn

log = logging.getLogger(__name__)
IN_BF16 = ("blocks", "layers", "layerwise_n_d_embed", "output", "generation_head", "generation_aligner")
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


def uses_bf16(precision: Precision, device: str = "cpu") -> bool:
    """Does `precision` mean bf16 here? "auto" and "bf16" do where the machine has it; "bf16" says so where not."""
    if precision == "bf16" and not has_bf16(device):
        _warn_once(device)
    return precision != "fp32" and has_bf16(device)


@lru_cache
def _warn_once(device: str) -> None:
    log.warning("precision bf16: this %s has no native bfloat16, float32 is used instead", device)


def autocast(precision: Precision, device: str = "cpu") -> AbstractContextManager:
    """A bf16 autocast region where `precision` means it."""
    return torch.autocast(device, dtype=torch.bfloat16) if uses_bf16(precision, device) else nullcontext()


@contextmanager
def products(tf32: bool, device: str) -> Iterator[None]:
    """Whether float32 products on an accelerator may be rounded to TF32 inside; as before afterwards."""
    if device != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def store_in_bf16(model: nn.Module) -> None:
    """`store_in` bfloat16."""
    store_in(model, torch.bfloat16)


def store_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep the matrices that autocast runs in half precision (blocks, output layers) in it, for decoding.

    Autocast would convert frozen float32 matrices again in every step. Everything that is float32 officially
    (embeddings, VAR's head, tokenizer) stays so.
    """
    for name, module in model.named_modules():
        inside = any(part in IN_BF16 for part in name.split("."))
        if inside and isinstance(module, nn.Linear) and not name.startswith("tokenizer."):
            module.to(dtype)
