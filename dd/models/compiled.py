"""torch.compile of the transformers: faster after a minute or more, and it needs a C++ compiler (Triton on cards)."""

from __future__ import annotations

from torch import nn


def compile_blocks(model: nn.Module) -> None:
    """Compile every transformer block in place; sequence lengths stay dynamic."""
    for name, module in model.named_modules():
        if name.rpartition(".")[0].endswith(("blocks", "layers")) and "tokenizer" not in name:
            module.compile(dynamic=True)
