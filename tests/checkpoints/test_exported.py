"""A model as a folder, for dd.load and others: what is written is what is read, and wrong folders are named."""

import json
import subprocess
import sys

import pytest

from dd.checkpoints.exported import INDEX, read_folder, write_folder
from dd.errors import DDError
from tests.helpers.tiny_models import tiny_model


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


def test_a_folder_is_read_without_diffusers(tmp_path):
    write_folder(tmp_path / "out", tiny_model("llamagen").exported())
    code = (
        "import sys; sys.modules['diffusers'] = None; import dd; "
        f"print(dd.load({str(tmp_path / 'out')!r}, 'cpu').sample('hat').shape)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "(1, 6, 6, 3)", run.stderr
