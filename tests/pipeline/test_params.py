"""Overrides: every fault is one line and nothing is written; what is written keeps its comments."""

from pathlib import Path

import pytest

from dd.errors import DDError
from pipeline import params, provenance
from pipeline.params import Change
from tests.pipeline.conftest import TOY, Toy

BOTH = ["toy-a", "toy-b"]


def check(*overrides: str, chosen: list[str] = BOTH) -> list[Change]:
    return params.check(params.load(TOY), overrides, chosen)


def test_keys_and_values() -> None:
    assert check("distill.lr=1e-4", chosen=["toy-a"]) == [Change("experiments.toy-a.distill.lr", 0.001, 1e-4)]
    assert [change.key for change in check("distill.steps=9")] == [f"experiments.{e}.distill.steps" for e in BOTH]
    assert check("toy-b.distill.lr=2") == check("experiments.toy-b.distill.lr=2")
    assert check("toy-a.distill.losses.regression=0.5") == [
        Change("experiments.toy-a.distill.losses.regression", None, 0.5)
    ]
    assert check("distill.lr=0.001") == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distill.lr", "expected an override such as distill.lr=1e-4, found 'distill.lr'"),
        ("distill.lr=", "expected an override such as distill.lr=1e-4, found 'distill.lr='"),
        ("toy-a.distill.lrr=1", "experiments.toy-a.distill.lrr: unknown parameter, did you mean lr?"),
        ("toy-a.distill.steps=many", "experiments.toy-a.distill.steps: "),
        ("toy-a.distill.steps=-1", "got -1"),
        ("toy-a.distill=3", "found a section: override its values one by one"),
        ("toy-a.distill.lr.x=3", "'lr' is a value and has nothing below it"),
        ("experiments.toy-c.distill.lr=1", "found 'toy-c': did you mean toy-b or toy-a?"),
        ("toy-a=1", "expected the name of a parameter such as distill.lr, found 'toy-a'"),
        ("distill.lr=[1", "expected a value in YAML, found '[1'"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    with pytest.raises(DDError) as caught:
        check(override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_writing_keeps_comments_and_is_seen_as_a_difference(toy: Toy) -> None:
    before = (toy.root / "params.yaml").read_text()
    params.apply(toy.root, params.check(params.load(toy.root), ["toy-a.distill.lr=0.5"], BOTH))
    wanted = before.replace("lr: 0.001  # kept", "lr: 0.5  # kept")
    assert [line.split() for line in (toy.root / "params.yaml").open()] == [
        line.split() for line in wanted.splitlines()
    ]
    assert provenance.uncommitted(toy.root) == ["experiments.toy-a.distill.lr: 0.001 -> 0.5"]
    table = {row["what"]: row["value"] for row in provenance.rows(toy.root)}
    assert table["git revision"].endswith("and 1 changed files")
    assert table["not as committed"] == "experiments.toy-a.distill.lr: 0.001 -> 0.5"
    assert len(table["dvc.lock"]) == len("sha256 ") + 64


def test_a_working_tree_is_shared_unless_params_change(tmp_path: Path) -> None:
    def enter(alone: bool) -> None:
        with params.workspace(tmp_path, alone=alone):
            pass

    with params.workspace(tmp_path, alone=False):
        enter(alone=False)
        with pytest.raises(DDError, match="found that another run works here"):
            enter(alone=True)
    with params.workspace(tmp_path, alone=True), pytest.raises(DDError, match="a run with overrides works here"):
        enter(alone=False)


def test_params_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DDError, match=r"expected params\.yaml in"):
        params.load(tmp_path)
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(DDError, match=r"expected YAML in params\.yaml"):
        params.load(tmp_path)
    (tmp_path / "params.yaml").write_text("a: 1")
    with pytest.raises(DDError, match="expected `experiments:`"):
        params.load(tmp_path)
