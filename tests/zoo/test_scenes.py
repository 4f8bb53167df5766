"""Scenes laid out for the experiments."""

import pytest

from zoo import scenes as zoo_scenes


@pytest.mark.parametrize(("name", "copied"), [("scenes", 2), ("scenes-moved", 0)])
def test_captions_are_laid_out_for_experiments_where_a_teacher_draws_them(monkeypatch, tmp_path, name, copied):
    """Every experiment depends on all of captions/: a file that none of them reads would make them stale."""

    def make(_, target):
        for split in ("train", "test"):
            (target / split).mkdir(parents=True)
            (target / split / "captions.parquet").write_bytes(b"captions")
        return {"train": 1, "test": 1}

    (tmp_path / "zoo" / "data").mkdir(parents=True)
    (tmp_path / "captions").mkdir()
    monkeypatch.setattr(zoo_scenes, "HERE", tmp_path / "zoo")
    monkeypatch.setattr(zoo_scenes, "make", make)
    zoo_scenes.main(name)
    assert len(list((tmp_path / "captions").iterdir())) == copied
