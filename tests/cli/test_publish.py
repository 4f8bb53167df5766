"""dd-cli export and push: what they hand on, and what is refused before anything is sent."""

import pytest

from dd.errors import DDError


def test_a_repository_is_checked_before_the_model_is_loaded(cli, monkeypatch):
    monkeypatch.setattr("dd.api.load", lambda name: pytest.fail("loaded the model"))
    with pytest.raises(DDError, match="someone"):
        raise cli("push", "toy", "someone").exception


def test_a_folder_is_sent_as_it_is(cli, tmp_path):
    with pytest.raises(DDError, match=r"^--teacher: a folder is sent as it is; leave it out$"):
        raise cli("push", str(tmp_path), "someone/toy", "--teacher").exception


def test_an_export_names_its_files_and_their_size(cli, monkeypatch, tmp_path):
    def write(model, folder, teacher, prompts):
        assert (model, teacher, tuple(prompts)) == ("model of toy", True, ("a cat",))
        (folder / "dd").mkdir(parents=True)
        (folder / "dd" / "weights").write_bytes(b"x" * 1_500_000)

    monkeypatch.setattr("dd.api.load", lambda name: f"model of {name}")
    monkeypatch.setattr("dd.publish.export.export", write)
    done = cli("export", "toy", str(tmp_path / "out"), "--teacher", "--prompt", "a cat")
    assert done.output == f"wrote {tmp_path / 'out'}: 1 files, 1.5 MB\n"
