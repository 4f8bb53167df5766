"""Rehearsals: every preset, cut down, is a valid experiment; one of them through all stages on this CPU."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from dd import config
from dd.checkpoints.teachers import load_teacher_dir, materialise, read_info
from dd.config import Experiment, load_experiment
from dd.presets import add_experiment, preset_names
from dd.presets.needs import missing
from dd.text.random_states import RandomStates
from tests.helpers.paths import ROOT


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own, with one experiment, the repository's zoo and captions."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    for folder in ("zoo", "captions"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    path = tmp_path / "params.yaml"
    experiments = yaml.safe_load((ROOT / "params.yaml").read_text())["experiments"]
    path.write_text(yaml.safe_dump({"experiments": {"llamagen-fashion": experiments["llamagen-fashion"]}}))
    return path


@pytest.mark.parametrize("preset", preset_names())
def test_a_rehearsal_keeps_the_widths_and_needs_no_file(params: Path, preset: str, monkeypatch: pytest.MonkeyPatch):
    # A rehearsal of the widest needs 20 GB, more than some machines that only run the tests have.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 10**12))
    name = add_experiment(params, preset, rehearse=True)
    assert name == f"{preset}-rehearsal"
    full: Experiment = config.validate({"experiments": yaml.safe_load(_text(preset))}).experiments[preset]
    cut = load_experiment(name, params)
    assert cut.teacher.random_blocks == 2
    assert (cut.teacher.name, cut.student, cut.family) == (full.teacher.name, full.student, full.family)
    assert [s.name for s in cut.evaluate.samplers] == [s.name for s in full.evaluate.samplers]
    if full.distill:
        assert (cut.trajectories.pairs, cut.distill.steps) == (16 if full.family == "janus" else 64, 2)
        for part in ("timesteps", "student", "split"):
            assert getattr(cut.distill, part) == getattr(full.distill, part)
        # A source has the preset's real depth, so there is none, and no soft targets.
        without = {"soft": 0.0, "cross_entropy": 1.0} if full.distill.source else {}
        assert cut.distill.losses == full.distill.losses.model_copy(update=without)
        assert cut.distill.lr == pytest.approx(full.distill.lr / max(1, full.distill.warmup))
    lacking = [need.what for need in missing(cut, params.parent)]
    assert lacking in ([], ["package lpips"])


def _text(preset: str) -> str:
    return (ROOT / "dd" / "presets" / f"{preset}.yaml").read_text()


def test_a_random_teacher_is_the_same_every_time_and_says_what_it_is(tmp_path: Path):
    found = [materialise("var-fashion", tmp_path / name, random_blocks=1) for name in ("a", "b")]
    assert found[0] == found[1]
    info = read_info(tmp_path / "a")
    assert info.origin == {"random blocks": 1}
    teacher = load_teacher_dir(tmp_path / "a")
    with torch.inference_mode():
        tokens = torch.zeros(2, teacher.groups.length, dtype=torch.int64)
        logits = teacher.logits(tokens, torch.arange(2))
    assert 0.5 < float(logits.std()) < 4  # neither certain nor all alike


def test_captions_of_a_rehearsal_have_states_of_their_own():
    encoder = RandomStates(8)
    both = encoder.encode(["a red boot", "a bag", "a red boot"], 6)
    assert both.states.shape == (3, 6, 8)
    assert both.mask.sum(1).tolist() == [4, 3, 4]
    assert bool(both.mask[:, -1].all())
    assert torch.equal(both.states[0], both.states[2])
    assert not torch.equal(both.states[0, -1], both.states[1, -1])
    assert not both.states[~both.mask].any()
    assert RandomStates(1).encode(["a"], 3).states.dtype == torch.int64


@pytest.mark.slow
def test_every_stage_of_a_rehearsal_in_order(params: Path):
    """The shipped teacher's widths; two random blocks; metric networks that are not there are named at the end."""
    from dd.distillation import stage as distill
    from dd.evaluation import stage as evaluate
    from dd.trajectories import stage as trajectories
    from stages import teacher

    name = add_experiment(params, "var-fashion-long", rehearse=True)
    teacher.main(name)
    trajectories.main(name, trajectories.Engine(), "cpu")
    distill.main(name)
    evaluate.main(name)
    rows = json.loads((params.parent / "results" / name / "rows.json").read_text())["rows"]
    wanted = load_experiment(name).evaluate.samplers
    assert [row["sampler"] for row in rows] == [sampler.name for sampler in wanted]
    assert all(row["seconds_per_image"] is None and row["images"] == 2 for row in rows)
