"""Stage teacher."""

import pytest
import yaml

from dd.errors import DDError
from stages import teacher as stage

EVALUATE = {"samplers": [{"name": "teacher"}], "allow_missing": ["classifier", "reference"]}


def experiment_of(teacher: str, family: str = "llamagen", **settings) -> str:
    """A params.yaml with one experiment."""
    experiment = {"family": family, "teacher": {"name": teacher} | settings, "student": "tiny-dd"}
    return yaml.safe_dump({"experiments": {"mine": experiment | {"evaluate": EVALUATE}}})


def test_stage_teacher(zoo_project):
    (zoo_project / "params.yaml").write_text(experiment_of("tiny"))
    assert stage.main("mine").startswith("wrote data/mine/teacher: tiny, 3 classes, SHA-256 ")
    folder = zoo_project / "data/mine/teacher"
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    (folder / "left over").write_text("")
    stage.main("mine")  # replaces the folder as a whole, with the same bytes
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == first
    assert list((zoo_project / "work").iterdir()) == []
    assert [p.name for p in (zoo_project / "data/mine").iterdir()] == ["teacher"]


def test_stage_teacher_says_what_is_wrong(zoo_project):
    params = zoo_project / "params.yaml"
    params.write_text(experiment_of("tiny", "var"))
    with pytest.raises(DDError, match="expected a teacher of family var, 'tiny' is of family llamagen"):
        stage.main("mine")
    params.write_text(experiment_of("tiny", path=str(zoo_project / "missing")))
    with pytest.raises(DDError, match="but there is nothing"):
        stage.main("mine")
    with pytest.raises(DDError, match=r"no experiment 'mina' in params\.yaml; did you mean mine"):
        stage.main("mina")
    assert not (zoo_project / "data").exists()
