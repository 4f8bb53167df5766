"""A model as a folder: the same images bit for bit, a card that the hub takes, and every wrong folder in one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import dd
from dd.checkpoints.exported import INDEX, read_folder, write_folder
from dd.cli.main import app
from dd.errors import DDError
from dd.evaluation.rows import make_row
from dd.models.base import Filters
from dd.publish.card import model_card
from dd.publish.export import export
from tests.helpers.tiny_models import KINDS, conditions, tiny_encoder, tiny_model
from tests.helpers.toy_project import make_project

__all__ = ["tiny_encoder"]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    make_project(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_same_images(tmp_path, request, kind):
    request.getfixturevalue("tiny_encoder")
    model, folder = tiny_model(kind), tmp_path / "out"
    export(model, folder, teacher=True)
    read = dd.load(str(folder), "cpu")
    for steps in (1, 2, "teacher"):
        before = model.sample(**conditions(kind), n=5, steps=steps, seed=3)
        assert np.array_equal(read.sample(**conditions(kind), n=5, steps=steps, seed=3), before)
        assert before.std() > 1
    assert (read.classes, read.timesteps, read.filters, read.solver, read.text_encoder) == (
        model.classes,
        model.timesteps,
        model.filters,
        model.solver,
        model.text_encoder,
    )
    assert read.exported().settings.teacher == "tiny"


def test_without_its_teacher_a_model_draws_by_itself(tmp_path):
    model = tiny_model("llamagen")
    export(model, tmp_path / "out")
    assert not (tmp_path / "out" / "teacher").exists()
    read = dd.load(str(tmp_path / "out"), "cpu")
    assert np.array_equal(read.sample("hat", steps=2), model.sample("hat", steps=2))
    with pytest.raises(DDError, match=r"exported without its teacher tiny: export it again with --teacher"):
        read.sample("hat", steps="teacher")
    with pytest.raises(DDError, match=r"exported without its teacher tiny"):
        read.teacher.score(None, None, Filters())
    with pytest.raises(DDError, match=r"toy came without its teacher; export it from the experiment"):
        export(read, tmp_path / "again", teacher=True)
    export(read, tmp_path / "again")
    assert np.array_equal(dd.load(str(tmp_path / "again"), "cpu").sample("hat"), model.sample("hat"))


def test_an_older_export_is_replaced_and_other_folders_are_not(tmp_path):
    model, folder = tiny_model("llamagen"), tmp_path / "out"
    export(model, folder, teacher=True)
    export(model, folder)
    assert not (folder / "teacher" / "config.json").exists()
    dd.load(str(folder), "cpu")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(DDError, match=r"expected a new or empty folder, .*mine holds other files; name another one"):
        export(model, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(DDError, match=r"expected a folder, .*notes.txt is a file; name another place"):
        export(model, tmp_path / "mine" / "notes.txt")


def change(file, **values):
    data = json.loads(file.read_text())
    data.update(values)
    file.write_text(json.dumps(data))


def test_wrong_folders_are_named(tmp_path):
    folder = tmp_path / "out"
    settings = write_folder(folder, tiny_model("llamagen").exported())
    with pytest.raises(DDError, match=r"expected an exported model in .*none, model_index.json is missing"):
        read_folder(tmp_path / "none")
    for found, words in ((7, "got 7"), (None, "got another kind of model")):
        change(folder / INDEX, settings={"format": found} if found else {})
        with pytest.raises(DDError, match=rf"expected a model of dd's folder format 1, {words}: export it again"):
            read_folder(folder)
    change(folder / INDEX, settings={"format": 1, "odd": 2})
    with pytest.raises(DDError, match=r"model_index.json is damaged .*odd.*: fetch or export it again"):
        read_folder(folder)
    (folder / INDEX).write_text("{")
    with pytest.raises(DDError, match=r"model_index.json is damaged"):
        read_folder(folder)
    write_folder(folder, tiny_model("llamagen").exported())
    sizes = json.loads((folder / "transformer" / "config.json").read_text())["sizes"]
    change(folder / "transformer" / "config.json", sizes={**sizes, "dim": 24})
    with pytest.raises(DDError, match=r"does not fit 'transformer of .*out' .*expected \[4, 24\], got"):
        read_folder(folder)
    (folder / "vqvae" / "config.json").unlink()
    with pytest.raises(DDError, match=r"vqvae/config.json is missing: fetch or export the model again"):
        read_folder(folder)
    assert settings.format == 1


def test_nothing_is_exported_before_it_is_distilled():
    with pytest.raises(DDError, match=r"toy: there is no distilled student yet \(dvc repro distill@toy\)"):
        dd.load("toy").exported()


# ----------------------------------------------------------------------------------------------------------- the card


def metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def rows(**more):
    common = {"experiment": "toy", "metric": "FD-toy", "protocol": "fd-toy", "images": 500, "block": "measured"}
    return [
        make_row(**common, sampler="teacher", label="teacher", value=1.0),
        make_row(**common, sampler="dd", label="dd 0", value=2.5, **more),
    ]


def test_the_card_says_what_the_hub_asks_for():
    model = tiny_model("llamagen")
    card = model_card(model.exported().settings, rows(), model.provenance, "org/base", "samples.png", "org/toy")
    data = metadata(card)
    assert (data["license"], data["library_name"], data["base_model"]) == ("mit", "dd", "org/base")
    assert data["pipeline_tag"] == "unconditional-image-generation"
    result = data["model-index"][0]["results"][0]
    assert result["metrics"][0] == {"type": "frechet-distance", "value": 2.5, "name": "FD-toy, dd 0"}
    assert '("org/toy")' in card
    assert "| dd 0 |" in card
    assert "timesteps:" in card
    assert "arXiv:2412.17153" in card
    assert "![Samples" in card


def test_cards_of_other_kinds(tmp_path):
    settings = tiny_model("text", licence="DeepSeek Model License").exported().settings
    card = model_card(settings, [], {})
    data = metadata(card)
    assert (data["license"], data["license_name"]) == ("other", "deepseek-model-license")
    assert data["pipeline_tag"] == "text-to-image"
    assert "Not measured." in card
    assert "model-index" not in data
    with pytest.raises(DDError, match=r"toy names no licence; write it into the zoo's entry"):
        export(tiny_model("llamagen", licence=""), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_are_those_of_the_very_student(project, tmp_path, caplog):
    from dd.checkpoints.teachers import tensors_hash
    from dd.publish.export import results

    model = tiny_model("llamagen")
    file = project / "results" / "toy" / "rows.json"
    file.parent.mkdir(parents=True)
    assert results(model) == []
    file.write_text(json.dumps({"rows": rows(student_sha256="0" * 64)}))
    assert results(model) == []
    assert "was measured on another student: the card goes without results" in caplog.text
    from dataclasses import asdict

    own = tensors_hash(model.student.state_dict(), "llamagen", asdict(model.student.options))
    file.write_text(json.dumps({"rows": rows(student_sha256=own)}))
    assert [row["label"] for row in results(model)] == ["teacher", "dd 0"]


# ------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("dd.api.load", lambda name: tiny_model("var"))
    result = CliRunner().invoke(app, ["export", "toy", str(tmp_path / "out"), "--teacher"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"wrote {tmp_path / 'out'}: 11 files, ")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"model_index.json", "README.md", "samples.png", "teacher/config.json"} <= names


def test_a_folder_is_read_without_diffusers(tmp_path):
    write_folder(tmp_path / "out", tiny_model("llamagen").exported())
    code = (
        "import sys; sys.modules['diffusers'] = None; import dd; "
        f"print(dd.load({str(tmp_path / 'out')!r}, 'cpu').sample('hat').shape)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "(1, 6, 6, 3)", run.stderr
