"""Fashion-MNIST is pinned, and lies in the middle of its square."""

import numpy as np
import pytest
from pydantic import ValidationError

from dd.errors import DDError
from zoo.dataset import FASHION_FILES, fashion_mnist, on_black_squares
from zoo.settings import Dataset


def test_fashion_mnist_is_pinned(tmp_path, monkeypatch):
    monkeypatch.delenv("DD_FASHION_MNIST", raising=False)
    for name in FASHION_FILES:
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(DDError, match=r"train-images-idx3-ubyte\.gz: expected SHA-256 b0564c3eedab"):
        fashion_mnist(Dataset(source="fashion-mnist", folder=str(tmp_path), image_size=28))


def test_on_black_squares():
    pictures = np.arange(2 * 4 * 4).reshape(2, 4, 4).astype(np.uint8)
    found = on_black_squares(pictures, np.array([1, 0]), 6)
    assert found.images.shape == (2, 6, 6, 3)
    assert (found.images[:, 1:5, 1:5, 0] == pictures).all()
    assert found.images.sum() == 3 * pictures.sum()
    assert found.labels.tolist() == [1, 0]
    with pytest.raises(DDError, match="has pictures of 4 x 4; expected image_size at least that, got 3"):
        on_black_squares(pictures, np.array([1, 0]), 3)


def test_a_folder_needs_its_path():
    with pytest.raises(ValidationError, match="source 'folder' needs 'folder'"):
        Dataset(source="folder", image_size=8)
