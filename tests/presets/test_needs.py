"""What an experiment needs is known before its first second: packages, weights, references, captions, disk."""

import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from dd.config import Experiment, validate
from dd.errors import DDError, install
from dd.presets import preset_text
from dd.presets.needs import demand, disk_bytes, missing, needs
from tests.helpers.paths import ROOT


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with empty caches, no network and a small disk."""
    (tmp_path / "zoo").symlink_to(ROOT / "zoo")
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setenv("DD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**10, 0, 10**9))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    return tmp_path


def experiment(preset: str, **changes: object) -> Experiment:
    found = yaml.safe_load(preset_text(preset))[preset]
    return validate({"experiments": {"mine": found | changes}}).experiments["mine"]


def test_everything_that_lacks_is_named_at_once_with_its_way_out(bare: Path):
    lacking = {need.what: need.how for need in missing(experiment("var-d16"), bare)}
    ways = {
        "a CUDA device": "set device: auto",
        "package lpips": install("perceptual"),
        "lpips-vgg (553 MB)": "dd-cli zoo fetch lpips-vgg, or place https://download.pytorch.org",
        "inception (96 MB)": "dd-cli zoo fetch inception, or place https://github.com",
        "reference references/statistic.pth": "dd-cli zoo fetch dd-fid-statistic",
    }
    for what, how in ways.items():
        assert how in lacking[what]
    weights = [how for what, how in lacking.items() if what.startswith("teacher var-d16 (")]
    assert "place FoundationVision/var/var_d16.pth at" in weights[0]
    disk = next(how for what, how in lacking.items() if what.endswith("of disk"))
    assert "GB more (now 1 GB)" in disk
    with pytest.raises(DDError, match=r"^mine: its stages will need what is not here: a CUDA device: "):
        demand(experiment("var-d16"), bare, "mine")


def test_what_is_there_is_not_asked_for(bare: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 10**12))
    monkeypatch.delenv("HF_HUB_OFFLINE")  # the stage fetches the weights then
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert {need.what for need in missing(experiment("var-d16", device="auto"), bare)} == {
        "lpips-vgg (553 MB)",
        "inception (96 MB)",
        "reference references/statistic.pth",
    }
    allowed = experiment("var-d16-released", device="auto")
    evaluate = allowed.evaluate.model_copy(update={"allow_missing": ("inception-pytorch", "reference")})
    assert missing(allowed.model_copy(update={"evaluate": evaluate}), bare) == []
    (bare / "references").mkdir()
    (bare / "references" / "statistic.pth").touch()
    found = {need.what for need in missing(experiment("var-d16-released", device="auto"), bare)}
    assert found == {"inception (96 MB)"}


def test_text_needs_captions_an_encoder_and_a_reference_of_its_own(bare: Path):
    lacking = {need.what: need.how for need in missing(experiment("llamagen-t2i"), bare)}
    assert {"train captions captions/train.parquet", "test captions captions/test.parquet"} <= set(lacking)
    assert "[text]'" in lacking["text encoder google/flan-t5-xl"]
    how = lacking["reference references/captions.safetensors"]
    assert how == "dd-cli reference build dd FOLDER --out references/captions.safetensors"


def test_disk_counts_checkpoints_shards_and_states_of_captions():
    released, trained, text = (disk_bytes(experiment(name)) for name in ("var-d16-released", "var-d16", "llamagen-t2i"))
    assert 4e9 < released < 1e10
    assert 1.5e10 < trained < 4e10  # three copies of 310 M parameters of float32 in a checkpoint, and so on
    assert text > 1.2e6 * 40 * 2048 * 2


def test_shipped_experiments_have_all_they_need():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, found in validate(params).experiments.items():
        lacking = [need for need in needs(found, ROOT) if not need.here and "text encoder" not in need.what]
        assert not lacking, name


@pytest.mark.parametrize(
    ("gigabytes", "what", "how"),
    [
        (16, "a card of more than 16 GB", "one pair needs 17 GB and 75% of this device's 16 GB may be used: set"),
        (80, "of the card's 80 GB", ""),
    ],
)
def test_a_card_too_small_for_training_is_found_before_the_first_stage(
    bare: Path, monkeypatch: pytest.MonkeyPatch, gigabytes: int, what: str, how: str
):
    monkeypatch.setattr("dd.presets.needs.card_memory", lambda: gigabytes * 1e9)
    found = [need for need in needs(experiment("var-d16"), bare) if what in need.what]
    assert len(found) == 1
    assert found[0].here is (gigabytes == 80)
    assert found[0].how.startswith(how)


def test_a_batch_that_the_card_does_not_hold_is_found(bare: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dd.presets.needs.card_memory", lambda: 24e9)
    settings = yaml.safe_load(preset_text("llamagen-b"))["llamagen-b"]["distill"] | {"batch": 512}
    lacking = [
        need for need in missing(experiment("llamagen-b", distill=settings), bare) if "pairs at once" in need.what
    ]
    assert len(lacking) == 1
    assert lacking[0].how.startswith("set distill.batch: auto and global_batch: 512, or batch: ")


def test_processes_by_which_an_update_does_not_divide_are_found(bare: Path, monkeypatch: pytest.MonkeyPatch):
    ways = {
        "3": ["start 1, 2, 4, or change distill.global_batch"],
        "4": [],
        f"--config_file {shlex.quote(str(ROOT))}/docs/accelerate/gpus-8.yaml": [],
    }
    for setting, expected in ways.items():
        monkeypatch.setenv("DD_LAUNCH", setting)
        found = [need.how for need in missing(experiment("var-d16"), bare) if "pairs of an update" in need.what]
        assert found == expected
    monkeypatch.setenv("DD_LAUNCH", "--config_file nowhere.yaml")
    with pytest.raises(DDError, match="DD_LAUNCH: cannot read its --config_file"):
        missing(experiment("var-d16"), bare)
