"""What a folder of pictures holds, before any picture is opened."""

import pytest

from dd.datasets.listing import list_folder, read_metadata
from dd.errors import DDError


def fill(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"picture")
    return root


def test_classes_are_folders_and_files_come_by_name(tmp_path):
    found = list_folder(fill(tmp_path, "dog/2.png", "cat/deep/1.png", "cat/0.png", "notes.txt", "cat/.DS_Store"))
    assert found.classes == ("cat", "dog")
    assert [(file.name, file.label) for file in found.files] == [
        ("cat/0.png", 0),
        ("cat/deep/1.png", 0),
        ("dog/2.png", 1),
    ]
    assert {(one.file, one.reason) for one in found.skipped} == {
        ("notes.txt", "lies outside the class folders"),
        ("cat/.DS_Store", "left behind by an operating system"),
    }
    assert not found.captioned
    assert not found.warnings


def test_folders_that_look_like_splits_are_warned_about(tmp_path):
    found = list_folder(fill(tmp_path, "train/1.png", "test/1.png"))
    assert found.warnings == [
        "test and train look like splits, not like classes: name one of them as the folder, the other as --test-folder"
    ]


def test_captions_name_files_inside_the_folder(tmp_path):
    fill(tmp_path, "a.png", "b.png", "c.png")
    rows = ["file_name,text", "a.png,a cat", "b.png,", "../d.png,a dog", "e.png,an owl", "a.png,again"]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    found = list_folder(tmp_path)
    assert found.captioned
    assert [(file.name, file.caption) for file in found.files] == [("a.png", "a cat")]
    assert [(one.file, one.reason) for one in found.skipped] == [
        ("b.png", "its caption is empty"),
        ("../d.png", "metadata.csv names a file outside the folder"),
        ("e.png", "named by metadata.csv, but not there"),
        ("a.png", "a second caption of the same file"),
        ("c.png", "no caption in metadata.csv"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]\n", "line 1 is no JSON object; expected one a line"),
        ('{"image": "a.png"}\n', "expected a column 'file_name', got image; rename one"),
    ],
)
def test_metadata_that_cannot_be_read(tmp_path, text, said):
    (tmp_path / "metadata.jsonl").write_text(text)
    with pytest.raises(DDError, match=said):
        read_metadata(tmp_path / "metadata.jsonl", [])


def test_what_is_no_folder(tmp_path):
    for path, what in ((tmp_path / "none", "nothing"), (fill(tmp_path, "file") / "file", "a file")):
        with pytest.raises(DDError, match=f"expected a folder of class folders at .*, found {what}: check the path"):
            list_folder(path)
