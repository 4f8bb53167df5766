"""dd-cli and dd.load: drawing with what ships and with what was trained here, and every mistake in one line."""

import json
import logging
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import dd
from dd.checkpoints import zoo
from dd.checkpoints.safe import save_tensors
from dd.checkpoints.students import save_student_dir
from dd.cli import main as cli
from dd.cli.sample import parse_steps
from dd.errors import DDError
from dd.models.registry import build_student, student_config
from tests.helpers.toy_project import make_project, tiny_teacher


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def made(root):
    """A project whose teacher and student ship; trained from the points 0 and 4."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DD_ROOT", str(root))
        make_project(root)
        params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
        params["experiments"]["toy"]["distill"]["timesteps"] = [0, 4]
        (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        student, config = tiny_student(1)
        path = root / "zoo" / "tiny" / "student.safetensors"
        save_tensors(path, student.state_dict())
        zoo.register(
            "toy-dd",
            "student",
            path,
            family="llamagen",
            config=config,
            teacher="tiny",
            licence="MIT",
            source="a test",
            provenance={"settings": {"timesteps": [0, 4]}},
        )
    return root


def tiny_student(seed):
    teacher = tiny_teacher("llamagen")
    torch.manual_seed(seed)
    config = student_config(teacher)
    student = build_student("llamagen", config)
    student.initialise_from(teacher)
    return student, config


@pytest.fixture
def project(made, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(made))
    monkeypatch.chdir(made)
    return made


def run(monkeypatch, capsys, *arguments):
    """Exit status, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["dd-cli", *arguments])
    try:
        cli.main()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_load_draws_uint8_images(project):
    model = dd.load("toy")
    assert model.classes == ("hat", "shoe", "bag")
    images = model.sample(classes=["shoe", "bag"], steps=1, seed=0)
    assert images.shape == (2, 6, 6, 3)
    assert images.dtype == np.uint8
    assert model.sample(n=0).shape == (0, 6, 6, 3)
    assert len(model.sample()) == 3


def test_classes_as_they_are_printed(project):
    """The exact name first; another case only where it is unique."""
    model = replace(dd.load("toy"), classes=("A", "a", "Komodo dragon"))
    assert [model.class_names([name]) for name in ("A", "a", "Komodo dragon")] == [["A"], ["a"], ["Komodo dragon"]]
    assert [model._index(name) for name in (*model.class_names(), "komodo Dragon", "1")] == [0, 1, 2, 2, 1]
    shoes = replace(model, classes=("Shoe", "SHOE", "bag"))
    with pytest.raises(DDError, match="class 'shoe': toy has 'Shoe' and 'SHOE'; spell it as one of them"):
        shoes.sample("shoe")
    with pytest.raises(DDError, match="no class 'komodo' in toy; did you mean Komodo dragon"):
        model.sample("komodo")


def test_an_image_is_a_function_of_seed_index_and_class(project):
    model = dd.load("toy")
    images = model.sample(["hat", "bag"], n=6, seed=3)
    assert np.array_equal(images, model.sample(["hat", "bag"], n=6, seed=3, batch=2))
    assert np.array_equal(images[:2], model.sample([0, 2], seed=3))
    assert not np.array_equal(images, model.sample(["hat", "bag"], n=6, seed=4))
    assert not np.array_equal(images, model.sample(["hat", "bag"], n=6, seed=3, noise_scale=2.0))


@pytest.mark.parametrize("steps", [1, 2, [0, 2, 7], "teacher"])
def test_all_ways_to_draw(project, steps):
    assert dd.load("toy").sample("hat", n=2, steps=steps).shape == (2, 6, 6, 3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"classes": "boot"}, "no class 'boot' in toy; there are hat, shoe, bag"),
        ({"classes": "sho"}, "no class 'sho' in toy; did you mean shoe?"),
        ({"classes": 3}, "class: expected an index in 0..2 or a name, got 3"),
        ({"classes": []}, "classes: expected at least one, got an empty list"),
        ({"n": -1}, "n: expected a number of images, 0 or more, got -1"),
        ({"noise_scale": 0.0}, "noise_scale: expected a number above 0, got 0"),
        ({"noise_scale": float("nan")}, "noise_scale: expected a number above 0, got nan"),
        ({"steps": "teacher", "noise_scale": 1.1}, "noise_scale: the teacher's noise is always 1, got 1.1"),
        ({"batch": 0}, "batch: expected at least 1, got 0"),
        ({"steps": 3}, "steps: this student was trained from the points 0, 4, so it draws in 1..2 steps, got 3"),
        ({"steps": 0}, "so it draws in 1..2 steps, got 0"),
        ({"steps": [0, 9]}, "stay below the teacher's 9 groups"),
        ({"steps": "student"}, "steps: expected a number of evaluations, a list of groups, or 'teacher'"),
    ],
)
def test_mistakes_from_python(project, arguments, expected):
    with pytest.raises(DDError) as error:
        dd.load("toy").sample(**arguments)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_experiment(project):
    with pytest.raises(DDError, match=r"^no experiment or student 'toi'; did you mean toy"):
        dd.load("toi")


def test_a_student_of_the_zoo_by_its_own_name(project):
    model = dd.load("toy-dd")
    assert model.timesteps == (0, 4)
    assert model.sample("hat", steps=2).shape == (1, 6, 6, 3)


def test_what_was_trained_here_wins(project):
    shipped = dd.load("toy").sample("hat")
    student, config = tiny_student(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    target = project / "models" / "toy"
    save_student_dir(target, student, config, project / "data" / "toy" / "teacher", {"settings": {"timesteps": [0, 2]}})
    try:
        model = dd.load("toy")
        assert model.timesteps == (0, 2)
        assert not np.array_equal(model.sample("hat"), shipped)
    finally:
        for file in target.iterdir():
            file.unlink()


def test_without_a_student_the_teacher_still_draws(project, monkeypatch):
    entries = {name: entry for name, entry in zoo.entries().items() if name != "toy-dd"}
    monkeypatch.setattr(zoo, "entries", lambda: entries)
    model = dd.load("toy")
    assert model.sample("hat", steps="teacher").shape == (1, 6, 6, 3)
    with pytest.raises(DDError, match=r"toy: there is no distilled student: .* \(dvc repro distill@toy\)"):
        model.sample("hat")


def test_sample_command_writes_a_grid(project, monkeypatch, capsys, tmp_path):
    out = tmp_path / "grid.png"
    status, said, _ = run(
        monkeypatch, capsys, "sample", "toy", "--steps", "2", "--class", "hat", "--class", "1", "--n", "4", "--columns"
    , "2", "--out", str(out))  # fmt: skip
    assert status == 0
    assert said.startswith(f"wrote {out}: 4 images (hat, shoe) in ")
    with Image.open(out) as picture:
        assert picture.size == (28, 28)  # two images of 6, two pixels between, twice as large


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sample", "toi"], "error: no experiment or student 'toi'; did you mean toy?"),
        (["sample", "toy", "--class", "boot"], "error: no class 'boot' in toy; there are hat, shoe, bag"),
        (["sample", "toy", "--n", "-3"], "error: --n: expected at least 1 image, got -3"),
        (["sample", "toy", "--noise-scale", "-1"], "error: --noise-scale: expected a number above 0, got -1"),
        (["sample", "toy", "--steps", "fast"], "error: --steps: expected a number, groups such as 0,16, or 'teacher'"),
        (["sample", "toy", "--out", "grid.jpg"], "error: --out: expected a name that ends in .png, got grid.jpg"),
        (["report"], "error: expected results/<experiment>/rows.json, found none"),
        (["zoo", "show", "tinny"], "error: no entry 'tinny' in the zoo; did you mean tiny?"),
        (["experiment", "add", "var-d17"], "error: no preset 'var-d17'; did you mean var-d"),
        (["smaple"], "error: no such command 'smaple'"),
        (["sample"], "error: missing argument 'experiment'; dd-cli sample -h shows what it takes"),
        (["sample", "toy", "--frob"], "error: no such option: --frob; dd-cli sample -h shows what it takes"),
        (["sample", "toy", "--seed", "x"], "error: invalid value for '--seed': "),
    ],
)
def test_mistakes_on_the_command_line(project, monkeypatch, capsys, arguments, expected):
    status, _, errors = run(monkeypatch, capsys, *arguments)
    assert status == 2
    assert errors.startswith(expected)
    assert errors.count("\n") == 1


def test_no_permission_leaves_nothing_behind(project, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "grid.png"
    status, _, errors = run(monkeypatch, capsys, "sample", "toy", "--n", "1", "--out", str(out))
    assert status == 2
    assert errors.startswith("error: cannot write")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sample_names_the_classes_that_it_drew(project, monkeypatch, capsys, tmp_path):
    status, said, _ = run(monkeypatch, capsys, "sample", "toy", "--n", "2", "--out", str(tmp_path / "grid.png"))
    assert status == 0
    assert ": 2 images (hat, shoe) in " in said


def test_quiet_logs_no_progress(project, monkeypatch, capsys):
    monkeypatch.delenv("DD_QUIET", raising=False)
    monkeypatch.setattr("logging.basicConfig", lambda **settings: levels.append(settings["level"]))
    levels = []
    assert run(monkeypatch, capsys, "--quiet", "zoo", "list")[0] == 0
    assert run(monkeypatch, capsys, "zoo", "list")[0] == 0
    assert levels == [logging.WARNING, logging.INFO]
    assert os.environ.pop("DD_QUIET") == "1"


def test_the_pipeline_s_commands_want_a_checkout(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setattr("dd.cli.run.find_spec", lambda name: None)
    status, _, errors = run(monkeypatch, capsys, "run", "--dry")
    assert status == 2
    assert (
        errors
        == f"error: expected a checkout of this project with pipeline/, found none in {tmp_path}: run it from there\n"
    )
    (tmp_path / "pipeline").mkdir()
    assert "expected dvc, found none: pip install 'dd[pipeline]'" in run(monkeypatch, capsys, "run")[2]


def test_a_command_without_its_command_shows_help(monkeypatch, capsys):
    status, said, errors = run(monkeypatch, capsys, "zoo")
    assert (status, errors) == (2, "")
    assert "Usage: dd-cli zoo" in said


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dd.checkpoints.zoo.entries", interrupted)
    status, _, errors = run(monkeypatch, capsys, "zoo", "list")
    assert (status, errors) == (130, "stopped\n")


def test_exit_statuses_are_part_of_the_help(monkeypatch, capsys):
    said = " ".join(run(monkeypatch, capsys, "-h")[1].split())
    for status in ("0 done", "1 something failed", "2 wrong input", "130 stopped", "141 the reader"):
        assert status in said


@pytest.mark.parametrize("command", [[], ["sample"], ["report"], ["zoo"], ["zoo", "list"], ["experiment"], ["doctor"]])
def test_every_help_reads(monkeypatch, capsys, command):
    status, said, _ = run(monkeypatch, capsys, *command, "--help")
    assert status == 0
    assert "Usage: dd-cli" in said


def test_version(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--version")[1] == f"dd {dd.__version__}\n"


def test_steps_as_text():
    assert [parse_steps(text) for text in ("1", "0,16", "teacher")] == [1, [0, 16], "teacher"]


def test_shards_commands(tmp_path, monkeypatch, capsys):
    from dd.trajectories import stage as trajectories

    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    make_project(tmp_path)
    trajectories.main("toy", trajectories.Engine(), "cpu")
    folder = tmp_path / "data" / "toy" / "trajectories"
    status, said, _ = run(monkeypatch, capsys, "shards", "verify", str(folder))
    assert status == 0
    assert said.startswith("ok: 4 shards, 52 pairs")
    _, said, _ = run(monkeypatch, capsys, "shards", "info", str(folder), "--json")
    facts = json.loads(said)
    assert (facts["pairs"], facts["held_out"], facts["shards"], facts["length"]) == (40, 12, 4, 9)
    assert "filters" in run(monkeypatch, capsys, "shards", "info", str(folder))[1]
    damaged = folder / "00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    status, _, errors = run(monkeypatch, capsys, "shards", "verify", str(folder))
    assert status == 2
    assert errors.startswith(f"error: {damaged} is damaged (its SHA-256 differs)")
    status, _, errors = run(monkeypatch, capsys, "shards", "info", str(tmp_path))
    assert errors.startswith(f"error: expected shards in {tmp_path}, manifest.json is missing")
