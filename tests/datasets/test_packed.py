"""Packed images."""

import pytest

from dd.datasets import folder as data
from dd.datasets.packed import load_images, packed_hash
from dd.errors import DDError


def test_packed_hash_and_missing_files(folder, tmp_path):
    data.pack_folder(folder, tmp_path / "packed", 16)
    first = packed_hash(tmp_path / "packed")
    data.pack_folder(folder, tmp_path / "again", 16)
    assert packed_hash(tmp_path / "again") == first
    data.pack_folder(folder, tmp_path / "again", 8)
    assert packed_hash(tmp_path / "again") != first
    (tmp_path / "packed" / "train" / "labels.npy").unlink()
    with pytest.raises(DDError, match=r"expected a packed data set in .*, labels\.npy is missing"):
        load_images(tmp_path / "packed" / "train")
