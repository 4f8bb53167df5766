"""dd-cli sample: what it writes, and what it says."""

from PIL import Image

from dd.cli.sample import parse_steps
from tests.cli.conftest import run


def test_sample_command_writes_a_grid(shipped_project, monkeypatch, capsys, tmp_path):
    out = tmp_path / "grid.png"
    status, said, _ = run(
        monkeypatch, capsys, "sample", "toy", "--steps", "2", "--class", "hat", "--class", "1", "--n", "4", "--columns"
    , "2", "--out", str(out))  # fmt: skip
    assert status == 0
    assert said.startswith(f"wrote {out}: 4 images (hat, shoe) in ")
    with Image.open(out) as picture:
        assert picture.size == (28, 28)  # two images of 6, two pixels between, twice as large


def test_no_permission_leaves_nothing_behind(shipped_project, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "grid.png"
    status, _, errors = run(monkeypatch, capsys, "sample", "toy", "--n", "1", "--out", str(out))
    assert status == 2
    assert errors.startswith("error: cannot write")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sample_names_the_classes_that_it_drew(shipped_project, monkeypatch, capsys, tmp_path):
    status, said, _ = run(monkeypatch, capsys, "sample", "toy", "--n", "2", "--out", str(tmp_path / "grid.png"))
    assert status == 0
    assert ": 2 images (hat, shoe) in " in said


def test_steps_as_text():
    assert [parse_steps(text) for text in ("1", "0,16", "teacher")] == [1, [0, 16], "teacher"]
