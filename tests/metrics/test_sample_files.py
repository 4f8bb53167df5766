"""What the check of a file of samples finds: one fault a test, and nothing in a good file."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dd.cli.main import app
from dd.errors import DDError
from dd.metrics.protocols import ADM
from dd.metrics.sample_files import check_samples, open_samples

N, SIDE, CLASSES = 120, 64, 12
SMALL = replace(ADM, images=N, image_size=SIDE)


def photographs(seed: int = 0) -> np.ndarray:
    """(N, SIDE, SIDE, 3) uint8 with the spectrum of photographs (amplitude 1 / frequency); a mean colour a class."""
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")
    amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / SIDE)
    spectrum = np.fft.rfft2(rng.standard_normal((N, SIDE, SIDE, 3)), axes=(1, 2)) * amplitude[..., None]
    images = np.fft.irfft2(spectrum, s=(SIDE, SIDE), axes=(1, 2))
    images = 128 + 40 * images / images.std((1, 2, 3), keepdims=True)
    images += rng.uniform(-60, 60, (CLASSES, 3))[np.arange(N) % CLASSES][:, None, None]
    return images.round().clip(0, 255).astype(np.uint8)


def labels() -> np.ndarray:
    return np.arange(N) % CLASSES


def jpegs(images: np.ndarray, quality: int) -> np.ndarray:
    """The same pictures after JPEG."""
    found = []
    for image in images:
        data = io.BytesIO()
        Image.fromarray(image).save(data, format="JPEG", quality=quality)
        found.append(np.asarray(Image.open(data).convert("RGB")))
    return np.stack(found)


def save(path: Path, images: np.ndarray, classes: np.ndarray | None = None, compress: bool = False, **more) -> Path:
    arrays = {"arr_0": images} | ({} if classes is None else {"arr_1": classes}) | more
    (np.savez_compressed if compress else np.savez)(path, **arrays)
    return path


@pytest.fixture(scope="module")
def good() -> np.ndarray:
    return photographs()


@pytest.mark.parametrize("compress", [False, True])
def test_a_good_file(tmp_path: Path, good: np.ndarray, compress: bool):
    check = check_samples(save(tmp_path / "s.npz", good, labels(), compress), SMALL)
    assert check.findings == []
    assert check.good
    assert (check.shape, check.dtype, check.classes) == ((N, SIDE, SIDE, 3), "uint8", CLASSES)
    assert (check.lowest, check.highest, check.duplicates, check.blank) == (good.min(), good.max(), 0, 0)


def test_images_are_read_in_pieces(tmp_path: Path, good: np.ndarray):
    pieces = list(open_samples(save(tmp_path / "s.npz", good)).pieces(50))
    assert [len(piece) for piece in pieces] == [50, 50, 20]
    assert np.array_equal(np.concatenate(pieces), good)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: x.astype(np.float32) / 255, r"mis-measured: expected uint8 from 0 to 255, got float32 from 0 to 1"),
        (lambda x: x.astype(np.float32) / 127.5 - 1, r"got float32 from -1 to 1: the evaluator takes any number"),
        (lambda x: (x > 128).astype(np.uint8), r"mis-measured: only values from 0 to 1 are used: were the images"),
        (lambda x: x.transpose(0, 3, 1, 2), r"refused: expected .*\(N, H, W, 3\), got .*channels come first"),
        (lambda x: x[..., :1], r"refused: .* got \(120, 64, 64, 1\): 1 channels: repeat grey"),
        (lambda x: x[0], r"refused: expected images of shape \(N, H, W, 3\), got \(64, 64, 3\)"),
        (lambda x: x[:100], r"mis-measured: 100 images, the protocol takes 120: .* call it 'FD-adm, N=100'"),
        (lambda x: x[:, :32, :32], r"mis-measured: 32 x 32 pixels, the reference's images have 64 x 64"),
        (lambda x: np.concatenate([x[:-2], x[:2]]), r"mis-measured: 2 images are exact copies of others"),
        (
            lambda x: np.where(np.arange(N)[:, None, None, None] == 7, 9, x).astype(np.uint8),
            r"1 images have one colour",
        ),
        (lambda x: jpegs(x, 75), r"mis-measured: the images have been JPEGs"),
        (lambda x: jpegs(x, 92), r"mis-measured: the images have been JPEGs"),
        (lambda x: x[np.argsort(labels(), kind="stable")], r"mis-measured: neighbouring images are alike: sorted by"),
    ],
)
def test_one_fault(tmp_path: Path, good: np.ndarray, change, text: str):
    check = check_samples(save(tmp_path / "s.npz", np.ascontiguousarray(change(good))), SMALL)
    said = [f"{one.level}: {one.text}" for one in check.findings if one.level != "note"]
    assert len(said) == 1, said
    assert re.search(text, said[0]), said
    assert not check.good


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        (np.sort(labels()), "arr_1: classes come one after the other. The Inception score is taken of 5,000 images"),
        (
            np.where(labels() == 3, 4, labels()),
            "arr_1: classes have 10 to 20 images, the protocol takes as many of each",
        ),
        (labels()[:50], r"arr_1: expected one class number an image (120), got int64 of shape (50,)"),
        (labels().astype(float), r"arr_1: expected one class number an image (120), got float64"),
    ],
)
def test_labels(tmp_path: Path, good: np.ndarray, classes: np.ndarray, text: str):
    (found,) = check_samples(save(tmp_path / "s.npz", good, classes), SMALL).findings
    assert found.text.startswith(text)
    assert found.level == "mis-measured"


def test_statistics_in_the_file_replace_its_images(tmp_path: Path, good: np.ndarray):
    check = check_samples(save(tmp_path / "s.npz", good, labels(), mu=np.zeros(2), sigma=np.eye(2)), SMALL)
    assert [one.text for one in check.findings] == [
        "the file holds mu and sigma, which the evaluator takes in place of the images"
    ]


def test_what_is_no_file_of_samples(tmp_path: Path, good: np.ndarray):
    with pytest.raises(DDError, match=r"expected an npz file at .*none\.npz, there is none"):
        check_samples(tmp_path / "none.npz", SMALL)
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(DDError, match=r"text\.npz is truncated or no npz"):
        check_samples(tmp_path / "text.npz", SMALL)
    np.savez(tmp_path / "other.npz", images=good)
    with pytest.raises(DDError, match=r"has no array arr_0 \(found: images\): name it so"):
        check_samples(tmp_path / "other.npz", SMALL)
    np.savez(tmp_path / "objects.npz", arr_0=np.array([None, 1], dtype=object))
    with pytest.raises(DDError, match="arr_0 holds Python objects: save one uint8 array"):
        check_samples(tmp_path / "objects.npz", SMALL)
    with pytest.raises(DDError, match="arr_0 is in Fortran order"):
        check_samples(save(tmp_path / "fortran.npz", np.asfortranarray(good)), SMALL)


def test_command(tmp_path: Path, good: np.ndarray):
    """Exit status 1 for a number that would be wrong, 2 for no npz; --json holds everything."""
    path = save(tmp_path / "s.npz", good, labels())
    done = CliRunner().invoke(app, ["check-npz", str(path)])
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0].endswith("s.npz: (120, 64, 64, 3), uint8")
    assert "mis-measured: 64 x 64 pixels, the reference's images have 256 x 256" in done.stdout
    assert done.stdout.splitlines()[-1] == "not fit for the evaluator"
    found = json.loads(CliRunner().invoke(app, ["check-npz", str(path), "--json"]).stdout)
    assert found["good"] is False
    assert [one["level"] for one in found["findings"]] == ["mis-measured", "mis-measured"]
    missing = CliRunner().invoke(app, ["check-npz", str(tmp_path / "none.npz")])
    assert isinstance(missing.exception, DDError)  # main() turns it into one line and status 2
