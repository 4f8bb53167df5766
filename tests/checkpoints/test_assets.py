"""Metric networks and references: fetched by name, checked, refused when they are others; an own file is as good."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from dd.checkpoints import assets, zoo
from dd.checkpoints.assets import ASSETS, fetch_asset, verify_asset
from dd.errors import DDError, TemporaryError
from dd.metrics import inception, perceptual
from dd.metrics.features import MissingWeights
from dd.metrics.protocols import ADM, DD

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> assets.Asset:
    """A published file (behind a file:// address) and an empty cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("DD_ROOT", str(tmp_path / "project"))
    (tmp_path / "published.pth").write_bytes(CONTENT)
    url = (tmp_path / "published.pth").as_uri()
    made = replace(ASSETS["inception"], url=url, sha256=DIGEST[:8])
    monkeypatch.setitem(ASSETS, "inception", made)
    return made


def test_a_network_is_fetched_checked_and_found_by_its_library(asset: assets.Asset, tmp_path: Path):
    assert not asset.here()
    with pytest.raises(DDError, match=r"inception is not at .*: run 'dd-cli zoo fetch inception'"):
        zoo.verify("inception")
    assert zoo.fetch("inception") == [asset.path()]
    assert asset.path().read_bytes() == CONTENT
    assert asset.path() in inception._hub_cache()
    assert zoo.verify("inception") == [asset.path()]
    (tmp_path / "published.pth").unlink()
    assert zoo.fetch("inception") == [asset.path()]  # what is here needs no network


def test_other_bytes_are_refused_and_not_kept(asset: assets.Asset):
    wrong = replace(asset, sha256="00000000")
    with pytest.raises(DDError, match=r"invalid hash value .*: fetch it again, or place the file at"):
        fetch_asset(wrong)
    assert not list(asset.path().parent.glob("*"))
    asset.path().write_bytes(b"another")
    with pytest.raises(DDError, match=f"expected a SHA-256 that begins with {DIGEST[:8]}: remove it"):
        verify_asset(asset)


def test_without_a_network_the_place_is_named(asset: assets.Asset, tmp_path: Path):
    lost = replace(asset, url=(tmp_path / "none.pth").as_uri())
    with pytest.raises(TemporaryError, match=r"cannot fetch file://.*none\.pth .*: place the file at .*6726825d\.pth"):
        fetch_asset(lost)


def test_a_file_under_the_librarys_other_name_is_as_good(asset: assets.Asset):
    other = asset.path().with_name(inception.PTH_NAMES[1])
    other.parent.mkdir(parents=True)
    other.write_bytes(CONTENT)
    assert asset.here()
    assert fetch_asset(asset) == other


def test_places_are_those_that_are_read(asset: assets.Asset):
    assert ASSETS["adm-reference"].path() == ADM.reference_path()
    assert ASSETS["lpips-vgg"].path() == perceptual.vgg_path()
    assert assets.project_root() / assets.PLACED["dd-fid-statistic"] == DD.reference_path()
    assert ASSETS["lpips-vgg"].url == perceptual.VGG_SOURCE
    assert inception.PTH_SOURCE.endswith(ASSETS["inception"].place)


def test_a_reference_of_the_hub_is_put_where_its_protocol_looks(asset: assets.Asset, tmp_path: Path):
    placed = assets.put_in_place("dd-fid-statistic", tmp_path / "published.pth")
    assert placed == DD.reference_path()
    assert placed.read_bytes() == CONTENT


def test_lpips_without_its_weights(asset: assets.Asset):
    pytest.importorskip("lpips")
    with pytest.raises(MissingWeights, match=r"VGG16's weights.*run 'dd-cli zoo fetch lpips-vgg', or place https://"):
        perceptual.open_lpips()
