"""VAR, for the registry."""

from typing import Any

from dd.models.base import Tokenizer
from dd.models.family import Family, Part, Reader
from dd.models.var import sizes
from dd.models.var.student import DDVAR, DDVARConfig
from dd.models.var.teacher import VAR, VARTeacher
from dd.models.var.tokenizer import MultiScaleConfig, MultiScaleTokenizer
from dd.models.var.transformer import VARConfig


def _from_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    assert isinstance(tokenizer, MultiScaleTokenizer)
    return {"share_quant_resi": tokenizer.config.share_quant_resi}


def _sizes(tokenizer: Tokenizer) -> dict[str, Any]:
    assert isinstance(tokenizer, MultiScaleTokenizer)
    codes, width = tokenizer.codebook.shape
    return {"vocab_size": codes, "codebook_dim": width, "patch_nums": list(tokenizer.config.patch_nums)}


FAMILY = Family(
    name="var",
    tokenizer=Part(MultiScaleConfig, MultiScaleTokenizer),
    transformer=Part(VARConfig, VAR),
    student=Part(DDVARConfig, DDVAR),
    teacher=VARTeacher,
    depth="depth",
    from_tokenizer=_from_tokenizer,
    second_step=0.5,
    transformer_sizes=_sizes,
    read=Reader(sizes.transformer, sizes.tokenizer),
)
