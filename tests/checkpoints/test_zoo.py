"""The zoo: entries, registering, strict loading with helpful errors, teacher and student folders."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from dd.checkpoints import students, teachers, zoo
from dd.checkpoints import teachers as weights
from dd.checkpoints.safe import load_tensors, save_tensors
from dd.errors import DDError
from dd.models.base import Filters
from dd.models.registry import build_student, build_teacher, student_config
from stages import teacher as stage
from tests.helpers.paths import DATA

CODES = {"codebook_size": 16, "codebook_dim": 4, "z_channels": 32, "ch": 32, "ch_mult": [1, 1], "latent": 2}
GPT = {"n_layer": 1, "n_head": 2, "dim": 16, "vocab_size": 16, "block_size": 4, "num_classes": 3, "ffn_multiple": 16}
LICENCE = {"licence": "MIT", "source": "made in a test"}
CLASSES = ("hat", "shoe", "bag")
EVALUATE = {"samplers": [{"name": "teacher"}], "allow_missing": ["classifier", "reference"]}


def make_teacher(seed=0, **changes):
    torch.manual_seed(seed)
    return build_teacher("llamagen", CODES, GPT | changes)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder whose zoo ships one tiny teacher, a deeper one, and a student."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setenv("DD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "zoo" / "tiny"
    teacher, deep = make_teacher(), make_teacher(n_layer=2)
    save_tensors(folder / "tokenizer.safetensors", teacher.tokenizer.state_dict())
    save_tensors(folder / "transformer.safetensors", teacher.transformer.state_dict())
    save_tensors(folder / "deep.safetensors", deep.transformer.state_dict())
    config = json.loads(json.dumps(student_config(teacher)))
    save_tensors(folder / "student.safetensors", build_student("llamagen", config).state_dict())
    common = {"family": "llamagen", **LICENCE}
    zoo.register("tiny-tokenizer", "tokenizer", folder / "tokenizer.safetensors", config=CODES, **common)
    shared = {"tokenizer": "tiny-tokenizer", "classes": CLASSES, **common}
    zoo.register("tiny", "teacher", folder / "transformer.safetensors", config=GPT, **shared)
    zoo.register("tiny-deep", "teacher", folder / "deep.safetensors", config=GPT | {"n_layer": 2}, **shared)
    zoo.register("tiny-dd", "student", folder / "student.safetensors", config=config, teacher="tiny", **common)
    return tmp_path


def test_every_published_checkpoint_has_an_entry():
    hub_files = {(e.file.repo, e.file.path) for e in zoo.entries().values() if not e.shipped}
    published = json.loads((DATA / "checkpoints.json").read_text())
    groups = published["checkpoints"].values()
    wanted = {(f["repo"], f["path"]) for group in groups for f in group["files"].values()}
    assert wanted <= hub_files
    for entry in zoo.entries().values():
        assert entry.licence
        assert entry.source
        for other in filter(None, (entry.tokenizer, entry.teacher)):
            assert other in zoo.entries()


@pytest.mark.parametrize("name", ["var-d16", "var-d16-dd", "llamagen-b", "llamagen-b-dd", "llamagen-vq16"])
def test_lower_bounds_of_file_sizes_are_those_of_the_models(name):
    elements = sum(torch.Size(shape).numel() for shape in weights.entry_shapes(name).values())
    assert zoo.entry(name).file.size_at_least == 4 * elements


def test_imagenet_classes_have_names():
    names = zoo.entry("var-d16").class_names()
    assert len(names) == 1000
    assert names[207] == "golden retriever"


def test_registering_keeps_the_other_entries(project):
    assert [n for n, e in zoo.entries().items() if e.shipped] == ["tiny-tokenizer", "tiny", "tiny-deep", "tiny-dd"]
    before = zoo.entry("tiny")
    zoo.register("tiny", "teacher", project / "zoo/tiny/deep.safetensors", config=GPT, family="llamagen", **LICENCE)
    assert zoo.entry("tiny").file.path == "tiny/deep.safetensors"
    assert zoo.entry("tiny-dd").file.sha256
    assert before.file.sha256 != zoo.entry("tiny").file.sha256
    with pytest.raises(DDError, match=r"expected a file below .*zoo, got"):
        zoo.register("x", "text", project / "outside", **LICENCE)
    (project / "zoo" / "large").write_bytes(b"x" * 10_000_001)
    with pytest.raises(DDError, match=r"large has 10\.0 MB, shipped files at most 10 MB"):
        zoo.register("x", "text", project / "zoo" / "large", **LICENCE)


def test_unknown_names_and_kinds(project):
    with pytest.raises(DDError, match=r"no teacher 'tinny' in the zoo; did you mean tiny"):
        zoo.entry("tinny", "teacher")
    with pytest.raises(DDError, match=r"expected a teacher, 'tiny-dd' is a student; see 'dd-cli zoo list'"):
        zoo.entry("tiny-dd", "teacher")
    with pytest.raises(DDError, match="cannot be built: its AdaLN is shared"):
        teachers.load_teacher("var-d36")


def test_a_damaged_index_is_named(project):
    (project / "zoo" / "index.yaml").write_text("tiny: {kind: teacher, fille: 1}\n")
    with pytest.raises(DDError, match=r"index\.yaml: file: Field required"):
        zoo.entries()
    (project / "zoo" / "index.yaml").write_text("tiny: [")
    with pytest.raises(DDError, match=r"index\.yaml is not an index .*restore it from git"):
        zoo.entries()


def test_files_are_verified(project):
    assert len(zoo.fetch("tiny-dd")) == 3  # the student, its teacher, the teacher's tokenizer
    path = project / "zoo/tiny/transformer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DDError, match=r"zoo/tiny/transformer\.safetensors: expected SHA-256 .*restore it from git"):
        zoo.verify("tiny")
    path.unlink()
    with pytest.raises(DDError, match=r"zoo/tiny/transformer\.safetensors is missing: restore it"):
        teachers.load_teacher("tiny")


def test_no_network_names_the_file_and_the_place(project):
    with pytest.raises(
        DDError, match=r"vae_ch160v4096z32\.pth.*HF_HUB_OFFLINE.*place the file at .*cache/hub/FoundationVision/var"
    ):
        teachers.load_teacher("var-d16")
    with pytest.raises(DDError, match=r"run 'dd-cli zoo fetch'"):
        zoo.verify("var-d16")


def test_teacher_folder_round_trip(project):
    folder = project / "data" / "teacher"
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
    assert str(project) not in (folder / "teacher.json").read_text()


def test_the_hash_does_not_depend_on_the_container(project):
    """An official file (.pth, nested, with freqs_cis, wrapped) and ours give the same teacher."""
    own = project / "own"
    own.mkdir()
    state = make_teacher().transformer.state_dict()
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, own / "transformer.pth")
    index = project / "zoo" / "index.yaml"
    index.write_text(index.read_text().replace("tiny:\n", "tiny:\n  nesting: [model, '']\n"))
    info = teachers.materialise("tiny", project / "a", own=str(own))
    assert info.sha256 == teachers.materialise("tiny", project / "b").sha256
    assert info.origin["transformer"]["given by"] == "path"
    assert info.origin["tokenizer"]["entry"] == "tiny-tokenizer"
    torch.save({"model": state | {"freqs_cis": torch.zeros(3)}}, own / "transformer.pth")
    assert teachers.materialise("tiny", project / "c", own=str(own / "transformer.pth")).sha256 == info.sha256
    assert (project / "a/transformer.safetensors").read_bytes() == (project / "b/transformer.safetensors").read_bytes()


def test_a_checkpoint_of_another_depth_names_the_entry_that_fits(project):
    expected = (
        r"deep\.safetensors does not fit 'tiny' \(layers\.1\.attention\.\S+ not expected; "
        r".*\d+ more\): it fits the entry tiny-deep"
    )
    with pytest.raises(DDError, match=expected):
        teachers.materialise("tiny", project / "x", own=str(project / "zoo/tiny/deep.safetensors"))
    assert not (project / "x").exists()


def test_a_checkpoint_of_another_family_or_width(project):
    narrow = make_teacher(dim=8).transformer.state_dict()
    save_tensors(project / "narrow.safetensors", narrow)
    with pytest.raises(DDError, match=r"weight: expected \[4, 16\], got \[4, 8\].*it fits no entry of the zoo"):
        teachers.materialise("tiny", project / "x", own=str(project / "narrow.safetensors"))
    with pytest.raises(
        DDError, match=r"cls_embedding\.\S+ missing.*decoder\.\S+ not expected.*it fits the entry tiny-tokenizer"
    ):
        teachers.materialise("tiny", project / "x", own=str(project / "zoo/tiny/tokenizer.safetensors"))


def test_a_checkpoint_of_another_nesting_names_the_entry_that_fits(project):
    student = load_tensors(project / "zoo/tiny/student.safetensors")
    torch.save({"ema": student, "steps": 3}, project / "student.pt")
    with pytest.raises(
        DDError, match=r"expected tensors at the top level of .*keys ema, steps: it fits the entry tiny-dd"
    ):
        teachers.materialise("tiny", project / "x", own=str(project / "student.pt"))
    torch.save({"nothing": 1}, project / "student.pt")
    with pytest.raises(DDError, match=r"found the keys nothing: name the entry"):
        teachers.materialise("tiny", project / "x", own=str(project / "student.pt"))


def test_own_paths_that_are_wrong(project):
    with pytest.raises(DDError, match=r"expected a checkpoint or a folder at .*but there is nothing"):
        teachers.materialise("tiny", project / "x", own=str(project / "missing"))
    (project / "empty").mkdir()
    with pytest.raises(DDError, match=r"expected one of transformer\.safetensors, .* in .*empty, found none"):
        teachers.materialise("tiny", project / "x", own=str(project / "empty"))


def test_buffers_that_follow_from_the_sizes_may_be_absent(project):
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


def test_student_folders(project):
    teacher_dir, folder = project / "teacher", project / "student"
    teachers.materialise("tiny", teacher_dir)
    info = students.materialise_student("tiny-dd", folder, teacher_dir)
    assert (info.teacher, info.provenance["released"]) == ("tiny", "tiny-dd")
    student = students.load_student_dir(folder, teacher_dir)
    direct = students.load_student("tiny-dd")
    x, finished, condition = torch.randn(2, 4, 4), torch.tensor([0, 1]), torch.tensor([0, 1])
    out, same = student(x, finished, condition), direct(x, finished, condition)
    torch.testing.assert_close(out.logits, same.logits)
    config = json.loads(json.dumps(student_config(make_teacher())))
    saved = students.save_student_dir(project / "again", student, config, teacher_dir, {"steps": 3})
    assert saved.sha256 == info.sha256
    assert asdict(students.read_student_info(project / "again"))["provenance"] == {"steps": 3}


def test_a_student_of_another_teacher_is_refused(project):
    teachers.materialise("tiny", project / "a")
    teachers.materialise("tiny-deep", project / "b")
    students.materialise_student("tiny-dd", project / "student", project / "a")
    with pytest.raises(DDError, match=r"imitates tiny \(.*is tiny-deep .*distill again"):
        students.load_student_dir(project / "student", project / "b")
    with pytest.raises(DDError, match=r"student 'tiny-dd' imitates tiny, the experiment's teacher is tiny-deep"):
        students.materialise_student("tiny-dd", project / "x", project / "b")
    with pytest.raises(DDError, match=r"student\.json is missing: run its stage 'distill'"):
        students.load_student_dir(project / "a", project / "a")


def test_a_student_of_another_geometry_is_refused(project):
    """Its teacher's entry was registered anew with another grid, say."""
    teachers.materialise("tiny", project / "a")
    students.materialise_student("tiny-dd", project / "student", project / "a")
    file = project / "student" / "student.json"
    info = json.loads(file.read_text())
    info["config"]["block_size"] = 9
    file.write_text(json.dumps(info))
    with pytest.raises(DDError, match=r"student .*student gives 9 tokens in 9 groups, teacher tiny 4 in 4: distill ag"):
        students.load_student_dir(project / "student", project / "a")


def test_damaged_folders(project):
    with pytest.raises(DDError, match=r"teacher\.json is missing: run its stage 'teacher'"):
        weights.read_info(project)
    (project / "teacher.json").write_text('{"classes": [], "nom": 1}')
    with pytest.raises(DDError, match=r"teacher\.json is damaged or of another version"):
        weights.read_info(project)


def experiment_of(teacher: str, family: str = "llamagen", **settings) -> str:
    """A params.yaml with one experiment."""
    experiment = {"family": family, "teacher": {"name": teacher} | settings, "student": "tiny-dd"}
    return yaml.safe_dump({"experiments": {"mine": experiment | {"evaluate": EVALUATE}}})


def test_stage_teacher(project):
    (project / "params.yaml").write_text(experiment_of("tiny"))
    assert stage.main("mine").startswith("wrote data/mine/teacher: tiny, 3 classes, SHA-256 ")
    folder = project / "data/mine/teacher"
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    (folder / "left over").write_text("")
    stage.main("mine")  # replaces the folder as a whole, with the same bytes
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == first
    assert list((project / "work").iterdir()) == []
    assert [p.name for p in (project / "data/mine").iterdir()] == ["teacher"]


def test_stage_teacher_says_what_is_wrong(project):
    params = project / "params.yaml"
    params.write_text(experiment_of("tiny", "var"))
    with pytest.raises(DDError, match="expected a teacher of family var, 'tiny' is of family llamagen"):
        stage.main("mine")
    params.write_text(experiment_of("tiny", path=str(project / "missing")))
    with pytest.raises(DDError, match="but there is nothing"):
        stage.main("mine")
    with pytest.raises(DDError, match=r"no experiment 'mina' in params\.yaml; did you mean mine"):
        stage.main("mina")
    assert not (project / "data").exists()


def test_a_checkpoint_in_shards(project, monkeypatch):
    """The files that an index names are read together, each part's own tensors alone; odd indexes are refused."""
    teacher = make_teacher()
    whole = {f"model.codes.{name}": tensor for name, tensor in teacher.tokenizer.state_dict().items()}
    whole |= {f"model.{name}": tensor for name, tensor in teacher.get_submodule("transformer").state_dict().items()}
    whole["head.weight"] = torch.zeros(2)
    folder, names = project / "zoo" / "sharded", sorted(whole)
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
