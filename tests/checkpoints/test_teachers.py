"""Teachers as folders: round trips, hashes, and files that do not fit."""

import json
from pathlib import Path

import pytest
import torch

from dd.checkpoints import teachers, zoo
from dd.checkpoints import teachers as weights
from dd.checkpoints.safe import load_tensors, save_tensors
from dd.errors import DDError
from dd.models.base import Filters
from dd.models.registry import build_teacher
from tests.helpers.small.zoo import CLASSES, make_teacher


@pytest.mark.parametrize("name", ["var-d16", "var-d16-dd", "llamagen-b", "llamagen-b-dd", "llamagen-vq16"])
def test_lower_bounds_of_file_sizes_are_those_of_the_models(name):
    elements = sum(torch.Size(shape).numel() for shape in weights.entry_shapes(name).values())
    assert zoo.entry(name).file.size_at_least == 4 * elements


def test_teacher_folder_round_trip(zoo_project):
    folder = zoo_project / "data" / "teacher"
    info = teachers.materialise("tiny", folder)
    assert (info.image_size, info.classes) == (4, CLASSES)
    assert sorted(p.name for p in folder.iterdir()) == [
        "teacher.json",
        "tokenizer.safetensors",
        "transformer.safetensors",
    ]
    assert weights.read_info(folder) == info
    assert teachers.read_info(folder) == info
    teacher, original = teachers.load_teacher_dir(folder), make_teacher().eval()
    condition, filters = torch.tensor([0, 2]), Filters(guidance=1.5)
    found = teacher.log_probs(teacher.start(condition, filters))
    torch.testing.assert_close(found, original.log_probs(original.start(condition, filters)))
    assert not any(p.requires_grad for p in teacher.parameters())
    assert str(zoo_project) not in (folder / "teacher.json").read_text()


def test_the_hash_does_not_depend_on_the_container(zoo_project):
    """An official file (.pth, nested, with freqs_cis, wrapped) and ours give the same teacher."""
    own = zoo_project / "own"
    own.mkdir()
    state = make_teacher().transformer.state_dict()
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, own / "transformer.pth")
    index = zoo_project / "zoo" / "index.yaml"
    index.write_text(index.read_text().replace("tiny:\n", "tiny:\n  nesting: [model, '']\n"))
    info = teachers.materialise("tiny", zoo_project / "a", own=str(own))
    assert info.sha256 == teachers.materialise("tiny", zoo_project / "b").sha256
    assert info.origin["transformer"]["given by"] == "path"
    assert info.origin["tokenizer"]["entry"] == "tiny-tokenizer"
    torch.save({"model": state | {"freqs_cis": torch.zeros(3)}}, own / "transformer.pth")
    assert teachers.materialise("tiny", zoo_project / "c", own=str(own / "transformer.pth")).sha256 == info.sha256
    assert (zoo_project / "a/transformer.safetensors").read_bytes() == (
        zoo_project / "b/transformer.safetensors"
    ).read_bytes()


def test_a_checkpoint_of_another_depth_names_the_entry_that_fits(zoo_project):
    expected = (
        r"deep\.safetensors does not fit 'tiny' \(layers\.1\.attention\.\S+ not expected; "
        r".*\d+ more\): it fits the entry tiny-deep"
    )
    with pytest.raises(DDError, match=expected):
        teachers.materialise("tiny", zoo_project / "x", own=str(zoo_project / "zoo/tiny/deep.safetensors"))
    assert not (zoo_project / "x").exists()


def test_a_checkpoint_of_another_family_or_width(zoo_project):
    narrow = make_teacher(dim=8).transformer.state_dict()
    save_tensors(zoo_project / "narrow.safetensors", narrow)
    with pytest.raises(DDError, match=r"weight: expected \[4, 16\], got \[4, 8\].*it fits no entry of the zoo"):
        teachers.materialise("tiny", zoo_project / "x", own=str(zoo_project / "narrow.safetensors"))
    with pytest.raises(
        DDError, match=r"cls_embedding\.\S+ missing.*decoder\.\S+ not expected.*it fits the entry tiny-tokenizer"
    ):
        teachers.materialise("tiny", zoo_project / "x", own=str(zoo_project / "zoo/tiny/tokenizer.safetensors"))


def test_a_checkpoint_of_another_nesting_names_the_entry_that_fits(zoo_project):
    student = load_tensors(zoo_project / "zoo/tiny/student.safetensors")
    torch.save({"ema": student, "steps": 3}, zoo_project / "student.pt")
    with pytest.raises(
        DDError, match=r"expected tensors at the top level of .*keys ema, steps: it fits the entry tiny-dd"
    ):
        teachers.materialise("tiny", zoo_project / "x", own=str(zoo_project / "student.pt"))
    torch.save({"nothing": 1}, zoo_project / "student.pt")
    with pytest.raises(DDError, match=r"found the keys nothing: name the entry"):
        teachers.materialise("tiny", zoo_project / "x", own=str(zoo_project / "student.pt"))


def test_own_paths_that_are_wrong(zoo_project):
    with pytest.raises(DDError, match=r"expected a checkpoint or a folder at .*but there is nothing"):
        teachers.materialise("tiny", zoo_project / "x", own=str(zoo_project / "missing"))
    (zoo_project / "empty").mkdir()
    with pytest.raises(DDError, match=r"expected one of transformer\.safetensors, .* in .*empty, found none"):
        teachers.materialise("tiny", zoo_project / "x", own=str(zoo_project / "empty"))


def test_buffers_that_follow_from_the_sizes_may_be_absent(zoo_project):
    """EMA copies of official checkpoints hold parameters only."""
    teacher = build_teacher("var", VAR_CODES, VAR)
    state = teacher.transformer.state_dict()
    kept = {name: t for name, t in state.items() if name.rpartition(".")[2] not in weights.DERIVED}
    assert len(kept) < len(state)
    weights.load_strict(teacher.transformer, kept, Path("x.pth"), "var")
    del kept["pos_start"]
    with pytest.raises(DDError, match=r"x\.pth does not fit 'var' \(pos_start missing\)"):
        weights.load_strict(teacher.transformer, kept, Path("x.pth"), "var")


VAR_CODES = {"codebook_size": 16, "codebook_dim": 4, "ch": 32, "ch_mult": [1, 1], "patch_nums": [1, 2]}


VAR = {"depth": 1, "embed_dim": 16, "num_heads": 2, "num_classes": 3, "vocab_size": 16, "codebook_dim": 4}


VAR |= {"patch_nums": [1, 2]}


def test_damaged_folders(zoo_project):
    with pytest.raises(DDError, match=r"teacher\.json is missing: run its stage 'teacher'"):
        weights.read_info(zoo_project)
    (zoo_project / "teacher.json").write_text('{"classes": [], "nom": 1}')
    with pytest.raises(DDError, match=r"teacher\.json is damaged or of another version"):
        weights.read_info(zoo_project)


def test_a_checkpoint_in_shards(zoo_project, monkeypatch):
    """The files that an index names are read together, each part's own tensors alone; odd indexes are refused."""
    teacher = make_teacher()
    whole = {f"model.codes.{name}": tensor for name, tensor in teacher.tokenizer.state_dict().items()}
    whole |= {f"model.{name}": tensor for name, tensor in teacher.get_submodule("transformer").state_dict().items()}
    whole["head.weight"] = torch.zeros(2)
    folder, names = zoo_project / "zoo" / "sharded", sorted(whole)
    files = {"a-1.safetensors": names[::2], "a-2.safetensors": names[1::2]}
    for file, held in files.items():
        save_tensors(folder / file, {name: whole[name] for name in held})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, held in files.items() for name in held}}))
    found = zoo.entry("tiny", "teacher")
    part = zoo.Entry(name="part", **found.model_dump(exclude={"name"}) | {"prefix": "model.", "leave": ("codes.",)})
    tensors = teachers.read_weights(part, index)
    assert set(tensors) == set(teacher.get_submodule("transformer").state_dict())
    codes = part.model_copy(update={"prefix": "model.codes.", "leave": ()})
    assert set(teachers.read_weights(codes, index)) == set(teacher.tokenizer.state_dict())
    (folder / "a-2.safetensors").unlink()
    with pytest.raises(DDError, match=r"a-2.safetensors is missing: restore it"):
        teachers.read_weights(part, index)
    for text in ("{", "{}", '{"weight_map": {}}', '{"weight_map": {"x": "../a"}}', '{"weight_map": 3}'):
        index.write_text(text)
        with pytest.raises(DDError, match=r"model.safetensors.index.json is no index of shards \(.*\): fetch it again"):
            teachers.read_weights(part, index)
