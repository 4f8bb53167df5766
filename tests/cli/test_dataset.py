"""dd-cli dataset check: the report in words and as JSON, and its exit status."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dd.cli.main import app
from dd.errors import DDError


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        for name in ("cat", "dog"):
            (tmp_path / name).mkdir(exist_ok=True)
            pixels = np.full((4, 5, 3), 10 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "cat" / "bad.tif")
    return tmp_path


def test_json(folder):
    done = CliRunner().invoke(app, ["dataset", "check", str(folder), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["classes"] == {"cat": 3, "dog": 3}
    assert found["read"] == 6
    assert [one["file"] for one in found["skipped"]] == ["cat/bad.tif"]
    assert found["skipped"][0]["reason"].startswith("mode F, values 0.5 to 0.5")
    assert found["duplicates"] == [[f"cat/{n}.png", f"dog/{n}.png"] for n in range(3)]
    assert found["sizes"] == {"smallest": [5, 4], "median": [5, 4], "largest": [5, 4]}
    assert found["modes"] == {"RGB": 6}
    assert [line.split()[1] for line in found["warnings"]] == ["picture(s)", "picture(s)", "classes", "pictures"]


def test_words(folder):
    done = CliRunner().invoke(app, ["dataset", "check", str(folder)])
    assert done.exit_code == 0
    assert "      3  cat" in done.stdout
    assert "skipped  cat/bad.tif: mode F" in done.stdout
    assert "read 6 (6 PNG), skipped 1 (1 mode F, values 0.5 to 0.5)" in done.stdout


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"no picture")
    done = CliRunner().invoke(app, ["dataset", "check", str(tmp_path), "--json"])
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"].startswith("no readable image in ")
    done = CliRunner().invoke(app, ["dataset", "check", str(tmp_path)])
    assert isinstance(done.exception, DDError)  # main() turns it into one line and exit status 2
