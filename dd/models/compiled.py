"""torch.compile of the transformers: faster after a minute or more, and it needs a C++ compiler (Triton on cards)."""

from __future__ import annotations

import torch
from torch import nn

from dd.models.cache import Window


def compile_blocks(model: nn.Module) -> None:
    """Compile every transformer block in place; sequence lengths stay dynamic.

    Writing to the cache is left out: its two views share memory, and inductor's code for that gave NaN (torch 2.15 on a
    CPU; `python -m tests.soak.compiled`). That is said here and not at `Window.write`, where it would load the whole
    compiler with every import of a model.
    """
    if not getattr(Window.write, "_torchdynamo_disable", False):
        Window.write = torch.compiler.disable(Window.write)  # type: ignore[method-assign]
    for name, module in model.named_modules():
        if name.rpartition(".")[0].endswith(("blocks", "layers")) and "tokenizer" not in name:
            module.compile(dynamic=True)
