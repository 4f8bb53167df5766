"""Full-size models without memory: exactly the official state dicts' names and shapes."""

import json
from typing import Any

import pytest
import torch
from torch import nn

from dd.models.registry import build_student, build_teacher, build_tokenizer
from tests.helpers.paths import GOLDEN

MANIFESTS = sorted(GOLDEN.glob("manifests/*.json"))

VAR_NAMES = ("depth", "embed_dim", "num_heads", "num_classes", "mlp_ratio", "norm_eps", "patch_nums")
GPT_NAMES = (
    "n_layer",
    "n_head",
    "dim",
    "vocab_size",
    "block_size",
    "num_classes",
    "cls_token_num",
    "model_type",
    "caption_dim",
    "codebook_dim",
)
VAR_CODES: dict[str, Any] = {}  # the registry's defaults are the official tokenizers
VQ_CODES: dict[str, Any] = {}


def build(name: str, hyper: dict[str, Any]) -> nn.Module:
    """The module that a manifest describes, on the meta device."""
    if name.startswith("var_vae"):
        names = {"vocab_size": "codebook_size", "z_channels": "codebook_dim"}
        return build_tokenizer("var", {names.get(key, key): value for key, value in hyper.items()}, "meta")
    if name.startswith("llamagen_vq"):
        names = {"codebook_embed_dim": "codebook_dim"}
        return build_tokenizer("llamagen", {names.get(key, key): value for key, value in hyper.items()}, "meta")
    family = "llamagen" if "llamagen" in name else "var"
    config = {key: hyper[key] for key in (GPT_NAMES if family == "llamagen" else VAR_NAMES) if key in hyper}
    if name.startswith("dd"):
        return build_student(family, config, "meta")
    return build_teacher(family, {}, config, "meta").transformer


def test_all_manifests_are_there():
    assert len(MANIFESTS) >= 16, f"no manifests in {GOLDEN}: restore tests/data/golden or set DD_GOLDEN to its folder"


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_names_and_shapes(path):
    manifest = json.loads(path.read_text(encoding="utf-8"))
    state = build(path.stem, manifest["hyper"]).state_dict()
    assert all(tensor.is_meta for tensor in state.values())
    assert {name: list(tensor.shape) for name, tensor in state.items()} == manifest["keys"]
    for name, buffer in manifest["buffers"].items():
        assert str(state[name].dtype) == f"torch.{buffer['dtype']}"
    assert sum(tensor.numel() for tensor in state.values()) == manifest["n_elements_state_dict"]
    assert len(state) == manifest["n_keys"]
    assert next(iter(state.values())).dtype is torch.float32
