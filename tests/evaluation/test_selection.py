"""Knobs chosen on a validation reference: what is tried, what is written, what is refused."""

import json
from pathlib import Path

import pytest
import yaml

from dd import config
from dd.errors import DDError
from dd.evaluation import selection
from dd.evaluation import stage as evaluate
from dd.evaluation.selection import Knob, Search, check_disjoint, select, write_selection
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.moments import Estimate
from tests.helpers.paths import ROOT
from tests.helpers.small.evaluation import VALIDATION, N, add_reference, write_params


def test_every_drawn_row_gets_its_best_and_says_what_chose_it(selectable: Path):
    shown: list[Knob] = []
    found = select("toy", None, 30, shown.append)
    of_teacher = ["guidance", "temperature", "noise_scale"]
    assert [knob.name for knob in shown] == ["noise_scale", "noise_scale", *of_teacher, "noise_scale"]
    assert {found.rows[place].name for place in found.rows} == {"teacher", "dd", "dd+teacher"}
    assert all(row.selected_on == VALIDATION for row in found.rows.values())
    teacher = next(row for row in found.rows.values() if row.name == "teacher")
    chosen = {knob.name: knob.best for knob in shown[2:5]}
    standard = {"guidance": 1.5, "temperature": 1.0}  # of the pairs: left out, so that the row keeps its short name
    assert {name: getattr(teacher, name) for name in chosen} == {
        name: None if standard.get(name) == value else value for name, value in chosen.items()
    }
    assert list(shown[2].distances) == [0.75, 1.5]  # factors of the guidance that pairs were drawn with


def test_the_least_distance_wins(selectable: Path, monkeypatch: pytest.MonkeyPatch):
    distance = lambda self, row: Estimate(abs(row.noise_scale - 1.5) + (getattr(row, "guidance", 0) or 0))  # noqa: E731
    monkeypatch.setattr(Search, "distance", distance)
    found = select("toy", None, 30, lambda knob: None)
    assert {row.noise_scale for row in found.rows.values()} == {1.5}
    assert next(row.guidance for row in found.rows.values() if row.name == "teacher") == 0.75


def test_selection_draws_other_noise_than_table_and_pairs(selectable: Path, monkeypatch: pytest.MonkeyPatch):
    seeds = []
    monkeypatch.setattr(
        Search, "distance", lambda self, row: seeds.append(self.image_sampler.seed) or Estimate(row.noise_scale)
    )
    select("toy", None, 30, lambda knob: None)
    settings = config.load_experiment("toy")
    assert set(seeds).isdisjoint({settings.evaluate.seed, settings.trajectories.seed})


def test_params_keep_comments_and_everything_else(selectable: Path):
    path = selectable / "params.yaml"
    text = path.read_text().replace("experiments:\n", "# mine\nexperiments: # all of them\n")
    path.write_text(text)
    before = config.load_params(path)
    found = select("toy", None, 30, lambda knob: None)
    write_selection(path, found)
    after = path.read_text()
    assert "# mine\nexperiments: # all of them\n" in after
    samplers = config.load_experiment("toy", path).evaluate.samplers
    assert {place: samplers[place].noise_scale for place in found.rows} == {
        place: row.noise_scale for place, row in found.rows.items()
    }
    assert all(samplers[place].selected_on == VALIDATION for place in found.rows)
    assert config.load_params(path).experiments["toy"].distill == before.experiments["toy"].distill


def test_the_shipped_file_changes_in_its_own_rows_alone(tmp_path: Path):
    path = tmp_path / "params.yaml"
    original = (ROOT / "params.yaml").read_text()
    path.write_text(original)
    samplers = config.load_experiment("llamagen-fashion", path).evaluate.samplers
    place = next(i for i, sampler in enumerate(samplers) if sampler.name == "teacher")
    row = samplers[place].model_copy(update={"noise_scale": 1.03, "selected_on": "fd-fashion-validation"})
    write_selection(path, selection.Selection("llamagen-fashion", "fd-fashion-validation", {place: row}))
    lines = zip(original.splitlines(), path.read_text().splitlines(), strict=True)
    changed = [(old.strip(), new.strip()) for old, new in lines if old != new]
    assert changed == [
        ("- {name: teacher}", "- {name: teacher, noise_scale: 1.03, selected_on: fd-fashion-validation}")
    ]


def test_rows_say_what_chose_them(selectable: Path):
    write_params(
        selectable,
        samplers=[
            {"name": "teacher", "noise_scale": 1.1, "selected_on": VALIDATION},
            {"name": "dd", "steps": [0], "noise_scale": 1.2},
            {"name": "dd", "steps": [0, 2]},
            {"name": "dd+teacher", "steps": [0, 3], "teacher_start": 1, "selected_on": VALIDATION},
            {"name": "onestep*"},
        ],
    )
    evaluate.main("toy")
    rows = json.loads((selectable / "results" / "toy" / "rows.json").read_text())["rows"]
    assert [row["selected_on"] for row in rows] == [VALIDATION, "by hand", None, VALIDATION, None]
    assert rows[0]["label"] == "teacher noise 1.1"
    assert rows[1]["quality_ratio"] == pytest.approx(rows[1]["value"] / rows[0]["value"])


def test_the_reference_that_reports_is_refused(selectable: Path):
    with pytest.raises(DDError, match="select: fd-toy is the reference that the table is measured by"):
        select("toy", "fd-toy", 30, lambda knob: None)
    write_params(selectable, samplers=[{"name": "dd", "steps": [0], "selected_on": "fd-toy"}])
    with pytest.raises(DDError, match=r"toy, dd 0: selected_on must not be fd-toy, which the row is measured against"):
        evaluate.main("toy")


def test_a_validation_split_that_overlaps_is_refused(selectable: Path):
    reports = add_reference(selectable, "reports", seed=1, protocol="fd-toy")
    assert check_disjoint(add_reference(selectable, "other", seed=2), reports) is None
    with pytest.raises(DDError, match=rf"same.safetensors: {N} of {N} images are in reports.safetensors too"):
        check_disjoint(add_reference(selectable, "same", seed=1), reports)
    with pytest.raises(DDError, match="is the reference that the table is measured by: make one of other images"):
        check_disjoint(reports, reports)
    (selectable / "zoo" / "toy" / "reference.safetensors").write_bytes(
        (selectable / "zoo/toy/reports.safetensors").read_bytes()
    )
    add_reference(selectable, seed=1)
    with pytest.raises(DDError, match=rf"{N} of {N} images are in reference.safetensors too"):
        select("toy", None, 30, lambda knob: None)


def test_a_missing_validation_reference_says_what_to_do(project: Path):
    with pytest.raises(DDError, match=r"no reference for protocol fd-toy-validation at \S+: make it"):
        select("toy", None, 30, lambda knob: None)


def test_samplers_that_changed_meanwhile_are_left_alone(selectable: Path):
    found = select("toy", None, 30, lambda knob: None)
    path = selectable / "params.yaml"
    data = yaml.safe_load(path.read_text())
    data["experiments"]["toy"]["evaluate"]["samplers"].insert(0, {"name": "onestep*"})
    path.write_text(yaml.safe_dump(data))
    before = path.read_text()
    with pytest.raises(DDError, match=r"params.yaml: the samplers of toy have changed meanwhile: select again"):
        write_selection(path, found)
    assert path.read_text() == before


def test_shipped_references_share_no_image():
    """5,000 training images that neither the reference nor the rows `real` and `reconstruction` hold."""
    folder = ROOT / "zoo" / "fashion"
    extractor = ClassifierExtractor(folder / "extractor.safetensors")
    from dd.metrics.protocols import protocol
    from dd.metrics.references import load_reference

    validation = load_reference(folder / "validation.safetensors", protocol("fd-fashion-validation"), extractor)
    reports = load_reference(folder / "reference.safetensors", protocol("fd-fashion"), extractor)
    assert check_disjoint(validation, reports) is None
    assert (validation.gaussian.count, reports.gaussian.count) == (5000, 10000)
