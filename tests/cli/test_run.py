"""dd-cli run: what it needs before it hands over to the pipeline."""

from tests.cli.conftest import run


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
    assert "expected dvc, found none: pip install -c" in run(monkeypatch, capsys, "run")[2]
