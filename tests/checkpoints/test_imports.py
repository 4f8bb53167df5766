"""Checkpoints in the layouts of VAR's and LlamaGen's training scripts, at small sizes: into the zoo, to a picture."""

import argparse
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dd.checkpoints import imports, teachers, zoo
from dd.checkpoints.safe import load_tensors, state_dicts
from dd.errors import DDError
from dd.models.base import Filters
from dd.models.registry import build_teacher

CODES = {
    "llamagen": {"codebook_size": 24, "codebook_dim": 4, "z_channels": 32, "ch": 32, "ch_mult": [1, 2], "latent": 3}
    | {"num_res_blocks": 1},
    "var": {"codebook_size": 32, "codebook_dim": 6, "ch": 32, "ch_mult": [1, 2], "patch_nums": [1, 2, 4]},
}
SIZES = {
    "llamagen": {"n_layer": 3, "n_head": 1, "dim": 64, "vocab_size": 24, "block_size": 9, "num_classes": 5}
    | {"ffn_multiple": 64},
    "var": {"depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 7, "vocab_size": 32, "codebook_dim": 6}
    | {"patch_nums": [1, 2, 4], "mlp_ratio": 2.0},
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path / "project"))
    (tmp_path / "project" / "zoo").mkdir(parents=True)
    return tmp_path


def make(family, seed=0, **changes):
    torch.manual_seed(seed)
    return build_teacher(family, CODES[family], SIZES[family] | changes).eval()


def parts(teacher):
    return [
        {name: tensor.clone() for name, tensor in teacher.get_submodule(role).state_dict().items()}
        for role in ("transformer", "tokenizer")
    ]


def var_trainer(transformer, tokenizer):
    """trainer.py of VAR: ar-ckpt-last.pth."""
    state = {
        "config": {"label_smooth": 0.0},
        "var_wo_ddp": transformer,
        "vae_local": tokenizer,
        "var_opt": {"state": {}},
    }
    return {"epoch": 3, "iter": 0, "trainer": state, "args": {"bs": 768, "depth": 2}}


def llamagen_trainer(transformer, tokenizer):
    """train_c2i.py of LlamaGen: {steps:07d}.pt, weights and their average, wrapped by compile and DDP."""
    wrapped = {f"_orig_mod.{name}": tensor + 1 for name, tensor in transformer.items()}
    return {
        "model": {f"module.{name}": tensor for name, tensor in wrapped.items()},
        "ema": transformer,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]},
        "steps": np.float64(3.0),
        "args": argparse.Namespace(gpt_model="GPT-B", image_size=256),
    }


TRAINERS = {"var": var_trainer, "llamagen": llamagen_trainer}
TOLD = {"var": {}, "llamagen": {"block_size": 9}}


@torch.no_grad()
def draw(teacher, label=1):
    torch.manual_seed(1)
    state, tokens = teacher.start(torch.tensor([label]), Filters()), []
    for _ in range(len(teacher.groups)):
        tokens.append(teacher.log_probs(state).argmax(-1))
        teacher.advance(state, tokens[-1])
    return teacher.decode(teacher.codebook[torch.cat(tokens, 1)])


@pytest.mark.parametrize("family", ["var", "llamagen"])
def test_what_a_training_script_leaves_draws_the_same(project, family):
    teacher = make(family)
    transformer, tokenizer = parts(teacher)
    torch.save(TRAINERS[family](transformer, tokenizer), project / "last.pth")
    torch.save({"model": tokenizer, "steps": 1}, project / "vq.pt")
    codes = None if family == "var" else project / "vq.pt"
    said = imports.import_teacher("mine", family, project / "last.pth", codes, said=TOLD[family])
    assert said[0].startswith("transformer  'trainer.var_wo_ddp': " if family == "var" else "transformer  'ema': ")
    entry = zoo.entry("mine", "teacher")
    assert {key: entry.config[key] for key in SIZES[family] if key in entry.config} == {
        key: value for key, value in SIZES[family].items() if key in entry.config
    }
    assert entry.classes == tuple(map(str, range(SIZES[family]["num_classes"])))
    assert entry.licence == "not stated"
    again = teachers.load_teacher("mine")
    assert torch.equal(draw(again), draw(teacher))
    info = teachers.materialise("mine", project / "folder")
    assert info.image_size == teacher.tokenizer.image_size


@pytest.mark.parametrize("layout", ["bare", "safetensors", "shards", "state_dict"])
def test_other_layouts(project, layout):
    transformer, tokenizer = parts(make("var"))
    save_file(tokenizer, project / "vae.safetensors")
    file = project / "weights.pth"
    if layout == "bare":
        torch.save(transformer, file)
    elif layout == "state_dict":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in transformer.items()}}, file)
    elif layout == "safetensors":
        save_file(transformer, file := project / "model.safetensors")
    else:
        names = sorted(transformer)
        halves = {"model-00001.safetensors": names[::2], "model-00002.safetensors": names[1::2]}
        for name, some in halves.items():
            save_file({one: transformer[one] for one in some}, project / name)
        index = {"metadata": {}, "weight_map": {one: name for name, some in halves.items() for one in some}}
        (file := project / "model.safetensors.index.json").write_text(json.dumps(index))
    imports.import_teacher("mine", "var", file, project / "vae.safetensors", classes=tuple("abcdefg"))
    assert zoo.entry("mine").class_names() == tuple("abcdefg")
    assert torch.equal(draw(teachers.load_teacher("mine")), draw(make("var")))


def test_the_scales_come_from_the_buffer_or_are_asked_for(project):
    transformer, tokenizer = parts(make("var"))
    del transformer["lvl_1L"]
    torch.save(var_trainer(transformer, tokenizer), project / "last.pth")
    with pytest.raises(
        DDError, match=r"no buffer lvl_1L says which scales make 21 tokens: name them \(--set patch_nums"
    ):
        imports.import_teacher("mine", "var", project / "last.pth")
    imports.import_teacher("mine", "var", project / "last.pth", said={"patch_nums": [1, 2, 4]})
    assert zoo.entry("mine").config["patch_nums"] == [1, 2, 4]


def test_mistakes(project):
    transformer, tokenizer = parts(make("llamagen"))
    torch.save(llamagen_trainer(transformer, tokenizer), project / "last.pt")
    torch.save({"model": tokenizer}, project / "vq.pt")
    told = {"said": {"block_size": 9}}
    cases = [
        (
            lambda: imports.import_teacher("mine", "var", project / "last.pt"),
            r"holds no transformer of family var .*class_emb",
        ),
        (lambda: imports.import_teacher("mine", "janus", project / "last.pt"), "family janus cannot be imported"),
        (
            lambda: imports.import_teacher("mine", "llamagen", project / "last.pt", nesting="trainer.x", **told),
            r"no tensors at 'trainer\.x'; there are some at 'model', 'ema'",
        ),
        (
            lambda: imports.import_teacher("mine", "llamagen", project / "last.pt", project / "last.pt", **told),
            r"last\.pt holds no tokenizer of family llamagen",
        ),
        (
            lambda: imports.import_teacher(
                "mine", "llamagen", project / "last.pt", project / "vq.pt", classes=("a",), **told
            ),
            "classes: expected 5, as the class embedding has them, got 1",
        ),
        (lambda: imports.import_teacher("mine", "llamagen", project / "no.pt"), "there is no such file"),
    ]
    for call, expected in cases:
        with pytest.raises(DDError, match=expected):
            call()
    transformer["layers.1.attention.wo.weight"] = torch.zeros(3, 3)
    torch.save(transformer, project / "odd.pt")
    with pytest.raises(DDError, match=r"layers\.1\.attention\.wo\.weight: expected \[64, 64\], got \[3, 3\]"):
        imports.import_teacher("mine", "llamagen", project / "odd.pt", project / "vq.pt", **told)
    assert "mine" not in zoo.entries()


def test_a_name_that_is_taken(project):
    torch.save(var_trainer(*parts(make("var"))), project / "last.pth")
    imports.import_teacher("mine", "var", project / "last.pth")
    with pytest.raises(DDError, match="the zoo has an entry 'mine' already"):
        imports.import_teacher("mine", "var", project / "last.pth")


def test_a_path_of_ones_own_is_found_in_its_nesting(project):
    """teacher.path of an experiment: another training of the same sizes."""
    torch.save(var_trainer(*parts(make("var"))), project / "first.pth")
    imports.import_teacher("mine", "var", project / "first.pth")
    other = make("var", seed=5)
    torch.save(var_trainer(*parts(other)), project / "ar-ckpt-best.pth")
    for nesting in (None, "trainer.var_wo_ddp"):
        teachers.materialise("mine", project / "folder", str(project / "ar-ckpt-best.pth"), nesting=nesting)
        assert torch.equal(
            load_tensors(project / "folder" / "transformer.safetensors")["head.weight"],
            other.get_submodule("transformer").state_dict()["head.weight"],
        )
    with pytest.raises(DDError, match='expected tensors at "trainer" of'):
        teachers.materialise("mine", project / "folder", str(project / "ar-ckpt-best.pth"), nesting="trainer")


def test_numpy_numbers_are_read_and_code_is_not(project):
    torch.save({"model": {"a": torch.ones(2)}, "steps": np.float64(3), "n": np.int32(1)}, project / "a.pt")
    assert list(state_dicts(project / "a.pt")) == ["model"]
    assert torch.equal(load_tensors(project / "a.pt", "model")["a"], torch.ones(2))
    torch.save({"model": {"a": torch.ones(2)}, "call": print}, project / "b.pt")
    with pytest.raises(DDError, match=r"holds code \(__builtin__\.print\)"):
        state_dicts(project / "b.pt")


def test_shards_that_are_not_whole(project):
    save_file({"a": torch.ones(2)}, project / "one.safetensors")
    index = project / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}))
    with pytest.raises(DDError, match="b is in none of its 1 files"):
        load_tensors(index)
    index.write_text(json.dumps({"weight_map": {"a": "../one.safetensors"}}))
    with pytest.raises(DDError, match="names a file in another folder"):
        load_tensors(index)
    index.write_text("[]")
    with pytest.raises(DDError, match="is no index of shards"):
        load_tensors(index)
