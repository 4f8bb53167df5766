"""What the tests of several benches share."""

import json

import pytest
from typer.testing import CliRunner

from dd.checkpoints import zoo
from dd.cli.main import app
from tests.helpers.toy_metrics import extractor, few_subsets, folder, reference
from tests.helpers.toy_project import make_project

__all__ = ["extractor", "few_subsets", "folder", "reference"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    return make_project(tmp_path)


def bench(*arguments: str) -> list[dict]:
    result = CliRunner().invoke(app, ["bench", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


SIZES = {
    "var": (
        {"codebook_size": 32, "codebook_dim": 6, "ch": 32, "ch_mult": [1, 1], "patch_nums": [1, 2, 3]},
        {"depth": 2, "embed_dim": 16, "num_heads": 2, "num_classes": 10, "vocab_size": 32, "codebook_dim": 6}
        | {"patch_nums": [1, 2, 3]},
        {"cfg": 1.5, "top_k": 20, "top_p": 0.9},
    ),
    "llamagen": (
        {"codebook_size": 32, "codebook_dim": 6, "z_channels": 32, "ch": 32, "ch_mult": [1, 1], "latent": 3},
        {"n_layer": 2, "n_head": 2, "dim": 16, "num_classes": 10, "vocab_size": 32, "block_size": 9},
        {"cfg": 2.0},
    ),
}
CODES, GPT, _ = SIZES["llamagen"]
SIZES["text"] = (CODES, GPT | {"model_type": "t2i", "cls_token_num": 4, "caption_dim": 10}, {"cfg": 7.5, "top_k": 20})


JANUS = {"dim": 16, "n_layer": 2, "n_head": 2, "ffn_dim": 24, "text_vocab": 50, "vocab_size": 32, "codebook_dim": 6}
SIZES["janus"] = (CODES, JANUS | {"block_size": 9, "cls_token_num": 4, "bos": 1, "boi": 2, "pad": 3}, {"cfg": 5})


@pytest.fixture
def tiny_zoo(monkeypatch, tmp_path):
    """A zoo of tiny networks of every family, <family>-tiny, and a project in a temporary folder."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    made = {}
    for family, (codes, sizes, official) in SIZES.items():
        common = {
            "family": "llamagen" if family == "text" else family,
            "licence": "MIT",
            "source": "here",
            "file": zoo.FileInfo(path="none"),
        }
        made[f"{family}-codes"] = zoo.Entry(name=f"{family}-codes", kind="tokenizer", config=codes, **common)
        made[f"{family}-tiny"] = zoo.Entry(
            name=f"{family}-tiny",
            kind="teacher",
            config=sizes,
            tokenizer=f"{family}-codes",
            published={"sampling": official},
            **common,
        )
    monkeypatch.setattr(zoo, "entries", lambda: made)
