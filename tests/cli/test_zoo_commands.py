"""dd-cli zoo, experiment, doctor; every preset is a valid experiment with the authors' rows."""

import json
import re
import subprocess
import sys

import pytest
import typer
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner

from dd.checkpoints import hub, zoo
from dd.cli import doctor, experiment
from dd.cli import zoo as zoo_commands
from dd.config import Experiment, load_params, validate
from dd.errors import DDError
from dd.presets import add_experiment, preset_names, preset_text
from dd.system import git
from tests.helpers.hub_server import COMMIT, Hub

PARAMS = """\
# a comment of the user's
seed: 1   # kept
experiments:
  mine:   # so is this
    family: llamagen
    teacher: {name: "llamagen-b", guidance:   1.5}
    student: llamagen-b-dd
    evaluate: {samplers: [{name: dd}]}
"""
AFTER = """
# about the next key
other: 'x'
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a params.yaml and an empty zoo."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setenv("DD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "zoo").mkdir()
    (tmp_path / "params.yaml").write_text(PARAMS.replace("seed: 1   # kept\n", ""))
    return tmp_path


@pytest.fixture
def cli():
    app = typer.Typer()
    app.add_typer(zoo_commands.app, name="zoo")
    app.add_typer(experiment.app, name="experiment")
    app.command()(doctor.doctor)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def preset(name: str) -> Experiment:
    return validate({"experiments": yaml.safe_load(preset_text(name))}, name).experiments[name]


def has_quirk(sampler: object) -> bool:
    return getattr(sampler, "released_prefix", False)


GROUPS = {"var": 10, "llamagen": 256, "janus": 576, "var-fashion": 5, "llamagen-fashion": 49}
GROUPS |= {"t2i-fashion": 64, "llamagen-fashion-256": 256}


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
    # (tests/models/test_released_prefix.py).
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


def test_experiment_commands(project, cli):
    listed = cli("experiment", "list").output
    assert "mine" in listed
    assert "var-d24-released" in listed
    result = cli("experiment", "add", "llamagen-l", "--as", "big")
    assert "dvc repro evaluate@big" in result.output
    assert "big" in cli("experiment", "list").output


def test_zoo_commands(project, cli, monkeypatch):
    content = b"PK\x03\x04 not really" * 1000
    server = Hub({"FoundationVision/var/var_d16.pth": content, "FoundationVision/var/vae_ch160v4096z32.pth": b"x"})
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read from the environment when it was imported
    monkeypatch.setattr(hub, "_hub_cache", lambda _: None)
    before = {row["name"]: row for row in json.loads(cli("zoo", "list", "--json").output)}
    assert before["var-d16"]["here"] == ""
    assert "nothing yet" in cli("zoo", "show", "var-d16").output
    server.faults = ["drop:100", "503"]
    result = cli("zoo", "fetch", "var-d16")
    assert result.exit_code == 0, repr(result.exception)
    fetched = result.output
    assert "var_d16.pth" in fetched
    assert "vae_ch160v4096z32.pth" in fetched
    assert "ok " in cli("zoo", "verify", "var-d16").output
    shown = yaml.safe_load(cli("zoo", "show", "var-d16").output)
    assert (shown["here"], shown["recorded"]["revision"]) == (True, COMMIT)
    assert "var-d16" in cli("zoo", "list").output
    result = cli("zoo", "verify", "var-d20")
    assert isinstance(result.exception, DDError)
    server.close()


def test_doctor(project, cli):
    result = cli("doctor", "--json")
    found = {item["what"]: item for item in json.loads(result.output)}
    assert found["torch"]["state"] == "ok"
    assert found["params.yaml"]["found"] == "1 experiments"
    assert (found["git repository"]["state"], found["git repository"]["do"]) == ("missing", git.START)
    assert found["dvc repository"]["do"] == "dvc init"
    assert found["zoo llamagen-b"]["do"] == "dd-cli zoo fetch llamagen-b"
    assert result.exit_code == 1
    assert "dvc init" in cli("doctor").output
    (project / "params.yaml").write_text("experiments: 3\n")
    assert "correct it" in cli("doctor").output


def test_doctor_names_the_remote_of_dvc(project, cli):
    """A fresh clone has none: what `dvc pull` lists as missing is no fault."""

    def found() -> dict[str, str]:
        return {item["what"]: item for item in json.loads(cli("doctor", "--json").output)}.get("dvc remote")

    assert found() is None  # without DVC that is not the question
    (project / ".dvc").mkdir()
    assert (found()["state"], found()["do"]) == ("note", "docs/team.md")
    assert found()["found"] == "none: nothing for `dvc pull`; what git holds is enough to begin"
    (project / ".dvc" / "config").write_text("[core]\n    remote = team\n['remote \"team\"']\n    url = s3://here/%d\n")
    assert (found()["state"], found()["found"]) == ("ok", "team")


def test_these_commands_start_without_torch():
    code = "import sys; import dd.cli.zoo, dd.cli.doctor; from dd.checkpoints import zoo; zoo.entries();"
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)
