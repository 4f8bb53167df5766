"""Which networks an experiment uses beside its teacher, and whether they are there."""

import hashlib

import pytest

from dd.checkpoints import networks
from dd.config import Experiment
from dd.errors import DDError
from tests.helpers.paths import ROOT


def experiment(**changes) -> Experiment:
    data = {
        "family": "llamagen",
        "teacher": {"name": "llamagen-fashion", "guidance": 1.5},
        "trajectories": {"pairs": 8},
        "distill": {"steps": 1, "losses": {"perceptual": 1.0, "perceptual_network": "fashion-perceptual-extractor"}},
        "evaluate": {"protocol": "fd-fashion", "samplers": [{"name": "dd"}]},
    }
    return Experiment.model_validate(data | changes)


@pytest.fixture
def shipped(monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(ROOT))


def names(files) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in files]


def test_networks_are_those_of_the_settings(shipped):
    assert names(networks.distillation_networks(experiment())) == [
        "zoo/fashion-perceptual/extractor.safetensors",
        "zoo/fashion-perceptual/extractor.json",
    ]
    assert names(networks.evaluation_networks(experiment())) == [
        "zoo/fashion/extractor.safetensors",
        "zoo/fashion/reference.safetensors",
        "zoo/fashion/images.npz",
        "zoo/fashion-reader/extractor.safetensors",
    ]
    with_lpips = experiment(distill={"steps": 1, "losses": {"perceptual": 1.0, "perceptual_network": "lpips"}})
    assert networks.distillation_networks(with_lpips) == []
    adm = experiment(evaluate={"protocol": "adm", "samplers": [{"name": "dd"}]})
    assert networks.evaluation_networks(adm) == []


def test_digests_are_of_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    (tmp_path / "a").write_bytes(b"one")
    assert networks.digests([tmp_path / "a", tmp_path / "b"]) == {"a": hashlib.sha256(b"one").hexdigest()[:16]}


def test_a_network_that_is_missing_is_named_before_any_work(shipped, monkeypatch, tmp_path):
    networks.refuse_missing("mine", experiment())
    wrong = {"steps": 1, "losses": {"perceptual": 1.0, "perceptual_network": "fashion-percptual-extractor"}}
    with pytest.raises(
        DDError,
        match=r"no extractor 'fashion-percptual-extractor' in the zoo; did you mean fashion-perceptual-extractor",
    ):
        networks.refuse_missing("mine", experiment(distill=wrong))
    monkeypatch.setattr(networks, "distillation_networks", lambda _: [tmp_path / "extractor.safetensors"])
    with pytest.raises(
        DDError, match=r"^mine: extractor.safetensors of 'fashion-perceptual-extractor' is missing .*restore it$"
    ):
        networks.refuse_missing("mine", experiment())
    networks.refuse_missing("mine", experiment(distill={"steps": 1}))  # no perceptual term: none is needed
