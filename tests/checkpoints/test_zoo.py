"""The zoo: entries, registering, strict loading with helpful errors, teacher and student folders."""

import json

import pytest

from dd.checkpoints import teachers, zoo
from dd.errors import DDError
from tests.helpers.paths import DATA
from tests.helpers.small.zoo import GPT, LICENCE


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


def test_imagenet_classes_have_names():
    names = zoo.entry("var-d16").class_names()
    assert len(names) == 1000
    assert names[207] == "golden retriever"


def test_registering_keeps_the_other_entries(zoo_project):
    assert [n for n, e in zoo.entries().items() if e.shipped] == ["tiny-tokenizer", "tiny", "tiny-deep", "tiny-dd"]
    before = zoo.entry("tiny")
    zoo.register("tiny", "teacher", zoo_project / "zoo/tiny/deep.safetensors", config=GPT, family="llamagen", **LICENCE)
    assert zoo.entry("tiny").file.path == "tiny/deep.safetensors"
    assert zoo.entry("tiny-dd").file.sha256
    assert before.file.sha256 != zoo.entry("tiny").file.sha256
    with pytest.raises(DDError, match=r"expected a file below .*zoo, got"):
        zoo.register("x", "text", zoo_project / "outside", **LICENCE)
    (zoo_project / "zoo" / "large").write_bytes(b"x" * 10_000_001)
    with pytest.raises(DDError, match=r"large has 10\.0 MB, shipped files at most 10 MB"):
        zoo.register("x", "text", zoo_project / "zoo" / "large", **LICENCE)


def test_unknown_names_and_kinds(zoo_project):
    with pytest.raises(DDError, match=r"no teacher 'tinny' in the zoo; did you mean tiny"):
        zoo.entry("tinny", "teacher")
    with pytest.raises(DDError, match=r"expected a teacher, 'tiny-dd' is a student; see 'dd-cli zoo list'"):
        zoo.entry("tiny-dd", "teacher")
    with pytest.raises(DDError, match="cannot be built: its AdaLN is shared"):
        teachers.load_teacher("var-d36")


def test_a_damaged_index_is_named(zoo_project):
    (zoo_project / "zoo" / "index.yaml").write_text("tiny: {kind: teacher, fille: 1}\n")
    with pytest.raises(DDError, match=r"index\.yaml: file: Field required"):
        zoo.entries()
    (zoo_project / "zoo" / "index.yaml").write_text("tiny: [")
    with pytest.raises(DDError, match=r"index\.yaml is not an index .*restore it from git"):
        zoo.entries()


def test_files_are_verified(zoo_project):
    assert len(zoo.fetch("tiny-dd")) == 3  # the student, its teacher, the teacher's tokenizer
    path = zoo_project / "zoo/tiny/transformer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DDError, match=r"zoo/tiny/transformer\.safetensors: expected SHA-256 .*restore it from git"):
        zoo.verify("tiny")
    path.unlink()
    with pytest.raises(DDError, match=r"zoo/tiny/transformer\.safetensors is missing: restore it"):
        teachers.load_teacher("tiny")


def test_no_network_names_the_file_and_the_place(zoo_project):
    with pytest.raises(
        DDError, match=r"vae_ch160v4096z32\.pth.*HF_HUB_OFFLINE.*place the file at .*cache/hub/FoundationVision/var"
    ):
        teachers.load_teacher("var-d16")
    with pytest.raises(DDError, match=r"run 'dd-cli zoo fetch'"):
        zoo.verify("var-d16")
