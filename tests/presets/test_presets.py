"""Every preset is a valid experiment with the authors' rows; adding one changes nothing else."""

import re

import pytest
import yaml

from dd.checkpoints import zoo
from dd.config import Experiment, load_params, validate
from dd.errors import DDError
from dd.presets import add_experiment, preset_names, preset_text
from tests.helpers.small.params import PARAMS, make_params_project

AFTER = """
# about the next key
other: 'x'
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    return make_params_project(tmp_path)


def preset(name: str) -> Experiment:
    return validate({"experiments": yaml.safe_load(preset_text(name))}, name).experiments[name]


def has_quirk(sampler: object) -> bool:
    return getattr(sampler, "released_prefix", False)


GROUPS = {"var": 10, "llamagen": 256, "janus": 576, "var-fashion": 5, "llamagen-fashion": 49}


GROUPS |= {"t2i-fashion": 64, "llamagen-fashion-256": 256, "var-fashion-680": 10}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_valid_experiment(name):
    found = preset(name)
    small = "-fashion" in found.teacher.name
    if small and found.teacher.name not in zoo.entries():
        pytest.skip(f"teacher {found.teacher.name} does not ship yet")
    data = yaml.safe_load(preset_text(name))[name]
    assert {"trajectories", "distill", "student"} <= set(data)  # dvc.yaml reads these keys of every experiment
    teacher = zoo.entry(found.teacher.name, "teacher")
    assert teacher.family == found.family
    if found.student:
        assert zoo.entry(found.student, "student").teacher == found.teacher.name
    assert found.evaluate.images == (5_000 if found.condition == "text" else 10_000 if small else 50_000)
    groups = GROUPS[found.teacher.name if small else found.family]
    for sampler in found.evaluate.samplers:
        assert max(getattr(sampler, "steps", (0,))) < groups
        assert (getattr(sampler, "split", 0) or 0) <= groups


@pytest.mark.parametrize("name", [n for n in preset_names() if n.endswith("-released")])
def test_presets_hold_all_rows_of_the_official_tables(name):
    found = preset(name)
    mine = preset(name.removesuffix("-released"))
    published = zoo.entry(found.student or "").published["sampling"]
    rows = [
        {"steps": list(s.steps), "split": s.split}
        | ({"teacher_start": s.teacher_start} if s.name == "dd+teacher" else {})
        for s in found.evaluate.samplers
        if s.name in ("dd", "dd+teacher")
    ]
    assert rows == [{key: value for key, value in row.items() if key != "fid"} for row in published]
    # Ours decode the prefix properly; the released rows repeat what their authors did
    # (tests/integration/test_released_prefix.py).
    proper = [s.model_copy(update={"released_prefix": False}) if has_quirk(s) else s for s in found.evaluate.samplers]
    assert list(mine.evaluate.samplers[: len(proper)]) == proper
    assert mine.teacher == found.teacher
    assert mine.distill is not None
    assert set(mine.distill.timesteps) >= {step for row in rows for step in row["steps"]}


@pytest.mark.parametrize("after", ["", AFTER])
@pytest.mark.parametrize("indent", [2, 4])
def test_adding_changes_nothing_that_was_there(project, after, indent, monkeypatch):
    monkeypatch.setattr("dd.presets.validate", lambda data, _: validate({"experiments": data["experiments"]}))
    text = PARAMS + after
    if indent == 4:
        text = re.sub(r"^( +)", r"\1\1", text, flags=re.M)
    path = project / "params.yaml"
    path.write_text(text)
    assert add_experiment(path, "var-d16") == "var-d16"
    added = path.read_text()
    data = yaml.safe_load(added)
    assert list(data["experiments"]) == ["mine", "var-d16"]
    assert data["experiments"]["var-d16"] == yaml.safe_load(preset_text("var-d16"))["var-d16"]
    assert added.startswith(text.removesuffix(after))
    assert added.endswith(after)
    assert f"{' ' * indent}# VAR-d16 on ImageNet-256" in added
    assert data.get("other") == ("x" if after else None)


def test_adding_twice_and_under_another_name(project):
    path = project / "params.yaml"
    add_experiment(path, "var-d16")
    before = path.read_text()
    with pytest.raises(DDError, match="has an experiment 'var-d16' already: use --as"):
        add_experiment(path, "var-d16")
    assert add_experiment(path, "var-d16", "mine2") == "mine2"
    assert path.read_text().startswith(before)
    with pytest.raises(DDError, match=r"no preset 'var-d61'; did you mean var-d16"):
        add_experiment(path, "var-d61")
    with pytest.raises(DDError, match="experiment name: expected a name of up to 64 letters"):
        add_experiment(path, "var-d20", "a b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("experiments: [1\n", "not valid YAML"),
        ("experimants:\n  a: 1\n", "experimants: unknown parameter"),
    ],
)
def test_a_params_file_of_another_form_is_left_alone(project, text, message):
    path = project / "params.yaml"
    path.write_text(text)
    with pytest.raises(DDError, match=message):
        add_experiment(path, "var-d16")
    assert path.read_text() == text
    path.unlink()
    with pytest.raises(DDError, match="found none; run from the project's folder"):
        add_experiment(path, "var-d16")


def test_the_first_experiment_of_an_empty_file(project):
    path = project / "params.yaml"
    path.write_text("experiments: {}\n")
    add_experiment(path, "var-d16")
    assert list(load_params(path).experiments) == ["var-d16"]
