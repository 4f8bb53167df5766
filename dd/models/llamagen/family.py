"""LlamaGen, for the registry."""

from typing import Any

from dd.models.base import Tokenizer
from dd.models.family import Family, Part, Reader
from dd.models.llamagen import sizes
from dd.models.llamagen.student import DDGPTConfig, DDLlamaGen
from dd.models.llamagen.teacher import GPT, LlamaGenTeacher
from dd.models.llamagen.tokenizer import VQConfig, VQTokenizer
from dd.models.llamagen.transformer import GPTConfig


def _sizes(tokenizer: Tokenizer) -> dict[str, Any]:
    codes, width = tokenizer.codebook.shape
    return {"vocab_size": codes, "codebook_dim": width, "block_size": tokenizer.groups.length}


FAMILY = Family(
    name="llamagen",
    tokenizer=Part(VQConfig, VQTokenizer),
    transformer=Part(GPTConfig, GPT),
    student=Part(DDGPTConfig, DDLlamaGen),
    teacher=LlamaGenTeacher,
    depth="n_layer",
    from_tokenizer=lambda tokenizer: {"codebook_dim": tokenizer.codebook.shape[1]},
    second_step=80 / 256,
    unit_codes=True,
    transformer_sizes=_sizes,
    read=Reader(sizes.transformer, sizes.tokenizer),
)
