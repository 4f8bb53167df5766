"""Any folder of pictures becomes one packed array; what cannot is refused by name."""

import gzip

import numpy as np
import pytest
from PIL import Image

from dd.datasets import folder as data
from dd.errors import DDError
from zoo.dataset import FASHION_FILES, fashion_mnist, own_folder
from zoo.settings import Dataset


@pytest.fixture
def folder(tmp_path):
    """Two classes, with every mode and size of picture."""
    root = tmp_path / "mine"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    rgb = Image.fromarray(pixels)
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
    rgb.save(root / "cats" / "rgb.png")
    rgb.convert("L").save(root / "cats" / "grey.png")
    rgb.convert("P").save(root / "cats" / "palette.gif")
    rgb.resize((7, 90)).save(root / "dogs" / "tall.jpg")
    transparent = rgb.convert("RGBA")
    transparent.putalpha(0)
    transparent.save(root / "dogs" / "clear.png")
    Image.fromarray(np.full((9, 9), 65535, dtype=np.uint16)).save(root / "dogs" / "deep.png")
    (root / "dogs" / "notes.txt").write_text("not a picture")
    return root


def test_every_mode_and_size(folder):
    found = data.read_folder(folder, size=16)
    assert found.images.shape == (6, 16, 16, 3)
    assert found.images.dtype == np.uint8
    assert found.classes == ("cats", "dogs")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    clear, deep = found.images[3], found.images[4]  # sorted by name: clear, deep, tall
    assert (clear == 255).all()  # transparency lies over white
    assert (deep == 255).all()  # 16 bits are scaled, not cut


def test_crop_and_pad():
    wide = Image.new("RGB", (40, 20), (200, 10, 10))
    assert (data.fit(wide, 10)[:, :, 0] > 190).all()
    padded = data.fit(wide, 10, crop=False)
    assert (padded[0] == 0).all()
    assert (padded[5, :, 0] > 190).all()


def test_unreadable_files_are_named_or_skipped(folder, caplog):
    (folder / "cats" / "broken.png").write_bytes(b"\x89PNG not really")
    with pytest.raises(DDError, match=r"^1 unreadable image file.*cats/broken\.png; remove them or set unreadable: s"):
        data.read_folder(folder, 16)
    assert len(data.read_folder(folder, 16, on_error="skip")) == 6
    assert "cats/broken.png" in caplog.text


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda root: None, "expected a folder of class folders"),
        (lambda root: root.mkdir(), "has no class folders; expected mine/<class>/<image>.png"),
        (lambda root: (root / "empty").mkdir(parents=True), "class folder 'empty' holds no images"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, make, expected):
    make(tmp_path / "mine")
    with pytest.raises(DDError, match=expected):
        data.read_folder(tmp_path / "mine", 16)


def test_packed_round_trip(folder, tmp_path):
    found = data.read_folder(folder, 16)
    data.save_images(tmp_path / "packed", found)
    again = data.load_images(tmp_path / "packed")
    assert (again.images == found.images).all()
    assert (again.labels == found.labels).all()
    assert again.classes == found.classes
    (tmp_path / "packed" / "labels.npy").unlink()
    with pytest.raises(DDError, match=r"expected a packed data set in .*, labels\.npy is missing"):
        data.load_images(tmp_path / "packed")


def test_own_folder_is_split_by_class(folder):
    splits = own_folder(Dataset(source="folder", folder=str(folder), image_size=8, test_share=0.34))
    assert {name: len(split) for name, split in splits.items()} == {"train": 4, "test": 2}
    assert sorted(splits["test"].labels.tolist()) == [0, 1]
    with pytest.raises(DDError, match=r"^source: folder needs 'folder'"):
        own_folder(Dataset(source="folder", image_size=8))


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def test_idx_files(tmp_path):
    pictures = np.arange(2 * 4 * 4).reshape(2, 4, 4)
    (tmp_path / "images").write_bytes(idx(pictures))
    (tmp_path / "labels").write_bytes(idx(np.array([1, 0])))
    found = data.read_idx(tmp_path / "images", tmp_path / "labels", 6, ("a", "b"))
    assert found.images.shape == (2, 6, 6, 3)
    assert (found.images[:, 1:5, 1:5, 0] == pictures).all()
    assert found.labels.tolist() == [1, 0]
    with pytest.raises(DDError, match="holds 4 x 4 pictures; expected at most 3 x 3"):
        data.read_idx(tmp_path / "images", tmp_path / "labels", 3, ("a", "b"))
    with pytest.raises(DDError, match="expected an idx file of uint8 with 3 dimensions"):
        data.read_idx(tmp_path / "labels", tmp_path / "labels", 6, ("a", "b"))
    (tmp_path / "labels").write_bytes(b"no gzip")
    with pytest.raises(DDError, match="not a readable gzip file"):
        data.read_idx(tmp_path / "images", tmp_path / "labels", 6, ("a", "b"))


def test_fashion_mnist_is_pinned(tmp_path, monkeypatch):
    monkeypatch.delenv("DD_FASHION_MNIST", raising=False)
    for name in FASHION_FILES:
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(DDError, match=r"train-images-idx3-ubyte\.gz: expected SHA-256 b0564c3eedab"):
        fashion_mnist(Dataset(source="fashion-mnist", folder=str(tmp_path), image_size=28))
