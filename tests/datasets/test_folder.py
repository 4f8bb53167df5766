"""Any folder of pictures becomes packed arrays; what cannot be read is named, with the reason."""

import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dd.datasets import folder as data
from dd.datasets.packed import load_images
from dd.errors import DDError
from tests.helpers.paths import ROOT


def save(path, value=(200, 100, 50), size=(50, 40)):
    """A picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, value).save(path)


def names(found):
    return [file.name for file in found.read]


def skipped(found):
    return {one.file: one.reason for one in found.skipped}


def test_every_mode_and_size(folder, tmp_path):
    sizes = data.pack_folder(folder, tmp_path / "packed", 16, test_share=0.4)
    assert sizes == {"train": 4, "test": 2}
    packed = [load_images(tmp_path / "packed" / split) for split in ("train", "test")]
    assert [one.images.shape for one in packed] == [(4, 16, 16, 3), (2, 16, 16, 3)]
    assert packed[0].images.dtype == np.uint8
    assert packed[0].classes == ("cats", "dogs")
    assert sorted(packed[1].labels.tolist()) == [0, 1]
    report = data.survey(folder).report()
    assert report["classes"] == {"cats": 3, "dogs": 3}
    assert report["kinds"] == {"PNG": 4, "GIF": 1, "JPEG": 1}
    assert report["modes"]["RGBA"] == 1
    assert report["sizes"]["smallest"] == (7, 90)
    assert report["skipped"] == [{"file": "dogs/notes.txt", "reason": "Pillow does not know its format"}]


def test_everything_that_pillow_opens_is_read(tmp_path):
    endings = ["png", "avif", "webp", "jp2", "ppm", "tga", "qoi", "ico"]
    for number, ending in enumerate(endings):
        save(tmp_path / "mine" / "cat" / f"{number}.{ending}", (20 * number, 100, 50))
    (tmp_path / "mine" / "cat" / "drawing.svg").write_text("<svg/>")
    found = data.survey(tmp_path / "mine")
    assert len(found.read) == len(endings)
    assert found.line() == (
        "read 8 (1 PNG, 1 AVIF, 1 WEBP, 1 JPEG2000, 1 PPM, 1 TGA, 1 QOI, 1 ICO), "
        "skipped 1 (1 Pillow does not know its format)"
    )
    assert "1 picture(s) cannot be read: cat/drawing.svg (Pillow does not know its format)" in found.warnings()


def test_links_are_followed_and_circles_end(tmp_path):
    for number in range(5):
        save(tmp_path / "store" / f"{number}.png", (number, 0, 0))
    save(tmp_path / "mine" / "cat" / "own.png")
    os.symlink(tmp_path / "store", tmp_path / "mine" / "cat" / "batch2")
    os.symlink(tmp_path / "store", tmp_path / "mine" / "cat" / "again")
    os.symlink(tmp_path / "mine" / "cat", tmp_path / "store" / "back")
    os.symlink(tmp_path / "gone", tmp_path / "mine" / "cat" / "gone.png")
    found = data.survey(tmp_path / "mine")
    assert len(found.read) == 6
    assert skipped(found)["cat/gone.png"] == "a link to nothing"
    assert list(skipped(found).values()).count("a link to a folder that was read already") == 2


def test_hidden_folders_and_what_systems_leave_behind_are_no_data(tmp_path):
    for number in range(2):
        save(tmp_path / "mine" / "cat" / f"{number}.png", (number, 0, 0))
    (tmp_path / "mine" / "cat" / ".ipynb_checkpoints").mkdir()
    shutil.copy(tmp_path / "mine" / "cat" / "0.png", tmp_path / "mine" / "cat" / ".ipynb_checkpoints" / "0.png")
    (tmp_path / "mine" / "__MACOSX" / "cat").mkdir(parents=True)
    for place in ("cat/._0.png", "__MACOSX/cat/._0.png", "cat/.DS_Store", "cat/Thumbs.db"):
        (tmp_path / "mine" / place).write_bytes(b"\0\5\x16\7" + bytes(60))
    found = data.survey(tmp_path / "mine")
    assert found.classes == {"cat": 2}
    assert skipped(found) == {
        "__MACOSX": "left behind by an operating system",
        "cat/._0.png": "left behind by an operating system",
        "cat/.DS_Store": "left behind by an operating system",
        "cat/Thumbs.db": "left behind by an operating system",
        "cat/.ipynb_checkpoints": "hidden",
    }
    assert not [warning for warning in found.warnings() if "cannot be read" in warning]


def test_byte_equal_pictures_are_reported_and_lie_on_one_side(tmp_path):
    for number in range(20):
        save(tmp_path / "mine" / "cat" / f"{number:02}.png", (number, 0, 0))
        save(tmp_path / "mine" / "dog" / f"{number:02}.png", (number % 5, 0, 0))  # 4 copies of 5, all among the cats
    found = data.survey(tmp_path / "mine")
    assert sum(map(len, found.duplicates)) == 25
    for share in (0.1, 0.3, 0.6):
        apart = data.held_out(found.read, found.digests, share)
        there = {found.digests[file.name] for file in found.read if file.name in apart}
        rest = {found.digests[file.name] for file in found.read if file.name not in apart}
        assert there
        assert not there & rest
        for name in ("cat", "dog"):
            assert any(file.name.startswith(name) for file in found.read if file.name not in apart)


def test_the_split_depends_on_contents_not_on_names(tmp_path):
    for number in range(20):
        save(tmp_path / "mine" / "cat" / f"{number:02}.png", (number, 0, 0))
        save(tmp_path / "other" / "cat" / f"{19 - number:02}.png", (number, 0, 0))
    sides = []
    for name in ("mine", "other"):
        found = data.survey(tmp_path / name)
        sides.append({found.digests[file] for file in data.held_out(found.read, found.digests, 0.2)})
    assert sides[0] == sides[1]
    assert len(sides[0]) == 4


def test_unreadable_files_are_named_or_skipped(folder, tmp_path, caplog):
    (folder / "cats" / "broken.png").write_bytes(b"\x89PNG not really")
    (folder / "dogs" / "cut.jpg").write_bytes((folder / "dogs" / "tall.jpg").read_bytes()[:300])
    with pytest.raises(DDError, match=r"^2 unreadable image file.*cats/broken\.png \(Pillow.*dogs/cut\.jpg \(damaged"):
        data.pack_folder(folder, tmp_path / "packed", 16)
    caplog.set_level(logging.INFO)
    assert sum(data.pack_folder(folder, tmp_path / "packed", 16, on_error="skip").values()) == 6
    assert "2 picture(s) cannot be read: cats/broken.png" in caplog.text
    assert "read 6 (4 PNG, 1 GIF, 1 JPEG), skipped 3" in caplog.text


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda root: None, "expected a folder of class folders at .*, found nothing"),
        (lambda root: root.mkdir(), "has no class folders; expected mine/<class>/<image>.png"),
        (lambda root: (root / "empty").mkdir(parents=True), "class folder 'empty' holds no images"),
        (
            lambda root: (save(root / "a" / "1.png"), (root / "a" / "1.png").write_bytes(b"no")),
            r"no readable image in .* \(a/1\.png: Pillow does not know its format\)",
        ),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, make, expected):
    make(tmp_path / "mine")
    with pytest.raises(DDError, match=expected):
        data.checked(tmp_path / "mine")


@pytest.mark.parametrize("same", [True, False])
def test_nothing_to_hold_out(tmp_path, same):
    """One picture a class, or copies of one picture: a warning of the check, an error unless a test folder is given."""
    for number in range(9):
        save(tmp_path / "mine" / ("a" if same else str(number)) / f"{number}.png", (0 if same else number, 0, 0))
    assert any(
        line.startswith("no class has two different pictures") for line in data.checked(tmp_path / "mine").warnings()
    )
    with pytest.raises(
        DDError, match=rf"held out for testing \(9 picture\(s\) in {1 if same else 9} class\(es\)\): give a"
    ):
        data.pack_folder(tmp_path / "mine", tmp_path / "packed", 8)
    shutil.copytree(tmp_path / "mine", tmp_path / "test")
    for path in (tmp_path / "test").rglob("*.png"):
        save(path, (0, 0, 200))
    sizes = data.pack_folder(tmp_path / "mine", tmp_path / "packed", 8, test_folder=tmp_path / "test")
    assert sizes == {"train": 9, "test": 9}


def test_odd_folders_are_read_with_a_warning(tmp_path):
    for number in range(3):
        save(tmp_path / "flat" / f"{number}.png", (number, 0, 0))
        for name in ("con", "train", "train/deeper", "A", "a"):
            save(tmp_path / "mine" / name / f"{number}.png", (number, 0, 0))
            save(tmp_path / "splits" / name.split("/")[0].replace("A", "test") / "x" / f"{number}.png")
    assert data.survey(tmp_path / "flat").classes == {"flat": 3}
    (tmp_path / "mine" / "nothing").mkdir()
    save(tmp_path / "mine" / "blind" / "1.png")
    (tmp_path / "mine" / "blind" / "1.png").write_bytes(b"no")
    save(tmp_path / "mine" / "outside.png")
    found = data.checked(tmp_path / "mine")
    assert found.classes == {"A": 3, "a": 3, "con": 3, "train": 6}
    assert skipped(found)["outside.png"] == "lies outside the class folders"
    said = found.warnings()
    assert "class folder 'nothing' holds no files and is left out" in said
    assert "no readable picture, left out: class blind" in said
    assert "classes that differ in upper and lower case only: A, a" in said
    assert {file.label for file in found.read} == {0, 1, 2, 3}
    shutil.rmtree(tmp_path / "splits" / "con")
    shutil.rmtree(tmp_path / "splits" / "a")
    assert any(
        line.startswith("test and train look like splits") for line in data.survey(tmp_path / "splits").warnings()
    )


def test_classes_of_a_few_pictures_are_told_of(tmp_path):
    for number in range(60):
        save(tmp_path / "many" / f"c{number // 2:02}" / f"{number}.png", (number, 0, 0))
        save(tmp_path / "few" / f"c{number // 20:02}" / f"{number}.png", (number, 0, 0))
    said = "30 classes of about 2 picture(s): too few to learn what a class is; make fewer, larger classes, or put"
    assert any(line.startswith(said) for line in data.survey(tmp_path / "many").warnings())
    assert not any("too few to learn" in line for line in data.survey(tmp_path / "few").warnings())


def test_a_test_folder_of_ones_own(folder, tmp_path, caplog):
    for name in ("cats", "dogs"):
        save(tmp_path / "test" / name / "new.png", (1, 2, 3) if name == "cats" else (4, 5, 6))
    shutil.copy(folder / "cats" / "rgb.png", tmp_path / "test" / "cats")
    sizes = data.pack_folder(folder, tmp_path / "packed", 8, test_folder=tmp_path / "test")
    assert sizes == {"train": 5, "test": 3}
    assert "1 pictures lie in the test folder too: left out of training" in caplog.text
    save(tmp_path / "test" / "birds" / "1.png")
    with pytest.raises(DDError, match=r"test_folder has classes birds, cats, dogs \(3\), expected cats, dogs \(2\)"):
        data.pack_folder(folder, tmp_path / "packed", 8, test_folder=tmp_path / "test")


def test_the_digest_follows_names_contents_and_captions(folder):
    first = data.folder_digest(folder)
    (folder / "dogs" / ".hidden").write_text("no data")
    assert data.folder_digest(folder) == first
    save(folder / "dogs" / "more.png")
    second = data.folder_digest(folder)
    (folder / "dogs" / "more.png").rename(folder / "cats" / "more.png")
    third = data.folder_digest(folder)
    save(folder / "cats" / "more.png", (0, 0, 1))
    assert len({first, second, third, data.folder_digest(folder)}) == 4


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    """700 pictures of 256 pixels are 138 MB packed; reading and packing them needs a third of that."""
    pixels = np.random.default_rng(0).integers(0, 256, (700, 4, 4, 3), dtype=np.uint8)
    (tmp_path / "mine" / "a").mkdir(parents=True)
    for number, small in enumerate(pixels):
        Image.fromarray(small).resize((256, 256)).save(tmp_path / "mine" / "a" / f"{number}.bmp")
    script = (
        "import resource, sys; from pathlib import Path; from dd.datasets.folder import pack_folder\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pack_folder(Path(sys.argv[1]), Path(sys.argv[2]), 256)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "mine"), str(tmp_path / "packed")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 50_000  # KiB


def test_a_file_of_gigabytes_is_named(tmp_path, monkeypatch):
    """A hole in a file stands for its size; hashing streams, which is not measured here."""
    save(tmp_path / "mine" / "cat" / "0.png")
    for name in ("video.mp4", "scan.tif", "huge.png"):
        with open(tmp_path / "mine" / "cat" / name, "wb") as file:
            file.write({"scan.tif": b"II*\0", "huge.png": b"\x89PNG\r\n\x1a\n"}.get(name, b"\0"))
            file.truncate(4 << 30)
    monkeypatch.setattr(data, "sha256_file", lambda path: path.name)
    found = data.survey(tmp_path / "mine")
    assert found.classes == {"cat": 1}
    assert set(skipped(found)) == {"cat/video.mp4", "cat/scan.tif", "cat/huge.png"}
    assert any(line.startswith("2 picture(s) cannot be read: cat/huge.png (") for line in found.warnings())
    side = int((Image.MAX_IMAGE_PIXELS * 2.1) ** 0.5)
    Image.new("1", (side, side)).save(tmp_path / "mine" / "cat" / "wide.png")
    assert skipped(data.survey(tmp_path / "mine"))["cat/wide.png"].endswith("pixels twice over")


def test_a_full_disk_is_one_line(folder, tmp_path):
    """Files of at most 4 KiB stand for a full disk: writing raises, nothing is killed."""
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from dd.datasets.folder import pack_folder; from dd.errors import DDError\n"
        "from dd.system import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    pack_folder(Path(sys.argv[1]), Path(sys.argv[2]), 64)\n"
        "except OSError as error:\n    print(type(error).__name__, error.errno)\n"
    )
    arguments = [sys.executable, "-c", script, str(folder), str(tmp_path / "packed")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["OSError", "27"]


def test_captions_as_the_hub_has_them(folder, tmp_path):
    (folder / "metadata.csv").write_text(
        "file_name,text\ncats/rgb.png,a cat\ndogs/tall.jpg,a tall dog\ndogs/clear.png,\n../out.png,x\nnone.png,y\n"
        "cats/rgb.png,again\ncats/grey.png,another cat\n",
        encoding="utf-8",
    )
    found = data.survey(folder)
    assert found.listing.captioned
    assert {file.name: file.caption for file in found.read} == {
        "cats/grey.png": "another cat",
        "cats/rgb.png": "a cat",
        "dogs/tall.jpg": "a tall dog",
    }
    assert skipped(found) == {
        "dogs/clear.png": "its caption is empty",
        "../out.png": "metadata.csv names a file outside the folder",
        "none.png": "named by metadata.csv, but not there",
        "cats/rgb.png": "a second caption of the same file",
        "cats/palette.gif": "no caption in metadata.csv",
        "dogs/deep.png": "no caption in metadata.csv",
        "dogs/notes.txt": "no caption in metadata.csv",
    }
    data.pack_folder(folder, tmp_path / "packed", 8, on_error="skip")
    import pyarrow.parquet as pq

    captions = pq.read_table(tmp_path / "packed" / "train" / "captions.parquet")["caption"].to_pylist()
    assert len(captions) == len(load_images(tmp_path / "packed" / "train")) == 2
    assert load_images(tmp_path / "packed" / "train").classes == ()


def test_captions_as_json_lines_and_metadata_without_captions(folder):
    (folder / "metadata.jsonl").write_text('{"file_name": "cats/rgb.png", "text": "a cat"}\n\n', encoding="utf-8")
    assert names(data.survey(folder)) == ["cats/rgb.png"]
    (folder / "metadata.jsonl").write_text('{"file_name": "cats/rgb.png"\n', encoding="utf-8")
    with pytest.raises(DDError, match=r"metadata\.jsonl: line 1 is no JSON object"):
        data.survey(folder)
    (folder / "metadata.jsonl").write_text('{"file_name": "cats/rgb.png", "label": 3}\n', encoding="utf-8")
    found = data.survey(folder)
    assert found.classes == {"cats": 3, "dogs": 3}
    assert "metadata.jsonl has no column text or caption: it is left out" in found.warnings()
    (folder / "metadata.jsonl").write_text('{"path": "cats/rgb.png"}\n', encoding="utf-8")
    with pytest.raises(DDError, match=r"metadata\.jsonl: expected a column 'file_name', got path"):
        data.survey(folder)
