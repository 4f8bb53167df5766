"""Images as files and arrays."""

import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dd.errors import DDError
from dd.metrics.images import RgbBatches, image_files, load_npz, read_images, to_uint8, write_npz, write_pngs
from tests.helpers.toy_metrics import pictures


def test_uint8_rounds_and_clamps():
    x = torch.tensor([-1.2, -1.0, 0.0, 0.999, 1.0, 3.0]).view(1, 1, 1, 6)
    assert to_uint8(x).flatten().tolist() == [0, 0, 128, 255, 255, 255]


def test_nan_images_are_refused():
    x = torch.zeros(4, 3, 2, 2)
    x[2, 0, 1, 1] = float("nan")
    with pytest.raises(DDError, match=r"NaN or infinity in 1 of 4 \(first: image 2"):
        to_uint8(x)


def test_greyscale_is_converted_and_said(caplog: pytest.LogCaptureFixture):
    check = RgbBatches()
    with caplog.at_level(logging.WARNING):
        out = check(torch.zeros(2, 1, 4, 4))
        check(torch.zeros(2, 1, 4, 4))
    assert out.shape == (2, 3, 4, 4)
    assert [r.message for r in caplog.records] == ["greyscale images were converted to RGB by repeating their channel"]
    with pytest.raises(DDError, match="expected images of 4 x 4, got 5 x 4"):
        check(torch.zeros(2, 3, 5, 4))
    with pytest.raises(DDError, match=r"expected images of shape \(B, 3, H, W\)"):
        check(torch.zeros(2, 4, 4, 4))


def test_png_folder_round_trip_and_its_faults(tmp_path: Path):
    images, _ = pictures(5)
    write_pngs(tmp_path / "a", images)
    assert torch.equal(torch.cat(list(read_images(image_files(tmp_path / "a"), batch=2))), images)
    write_pngs(tmp_path / "a", torch.zeros(1, 3, 9, 8, dtype=torch.uint8), start=7)
    with pytest.raises(DDError, match=r"one size, got 8 x 8 and then 8 x 9 \(.*000007.png\)"):
        list(read_images(image_files(tmp_path / "a")))
    (tmp_path / "a" / "000002.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DDError, match=r"000002.png is not a readable image"):
        list(read_images(image_files(tmp_path / "a")))
    with pytest.raises(DDError, match=r"expected at least 2 images in .*, found 0"):
        image_files(tmp_path / "empty")


def test_adm_npz_is_what_numpy_reads(tmp_path: Path):
    images, _ = pictures(7)
    assert write_npz(tmp_path / "s.npz", images.split(3), 6) == 6
    array = np.load(tmp_path / "s.npz")["arr_0"]
    assert array.dtype == np.uint8
    assert (array == images[:6].permute(0, 2, 3, 1).numpy()).all()
    with pytest.raises(DDError, match=r"expected 9 images for t.npz, got 7"):
        write_npz(tmp_path / "t.npz", images.split(3), 9)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.npz"]


def test_truncated_npz_is_refused(tmp_path: Path):
    write_npz(tmp_path / "s.npz", [pictures(20)[0]], 20)
    whole = (tmp_path / "s.npz").read_bytes()
    for end in (0, 10, len(whole) // 2, len(whole) - 3):
        (tmp_path / "cut.npz").write_bytes(whole[:end])
        with pytest.raises(DDError, match=r"cut.npz is truncated or no npz"):
            load_npz(tmp_path / "cut.npz")
    with pytest.raises(DDError, match="expected an npz file at"):
        load_npz(tmp_path / "none.npz")


def test_npz_with_pickles_is_refused(tmp_path: Path):
    np.savez(tmp_path / "p.npz", arr_0=np.array([{}], dtype=object))
    with pytest.raises(DDError, match=r"p.npz is truncated or no npz of plain arrays"):
        load_npz(tmp_path / "p.npz")
    assert zipfile.is_zipfile(tmp_path / "p.npz")
