"""One stage: whether it would run."""

from pipeline import graph, stage
from pipeline.graph import Stage
from tests.pipeline.conftest import Toy


def test_what_dvc_finds_unchanged(toy: Toy) -> None:
    plan = graph.read(toy.root)
    assert stage.unchanged(toy.root, plan, print) == frozenset(plan)
    text = (toy.root / "params.yaml").read_text()
    (toy.root / "params.yaml").write_text(text.replace("lr: 0.001  #", "lr: 0.002  #"))
    assert frozenset(plan) - stage.unchanged(toy.root, plan, print) == {"distill@toy-a", "evaluate@toy-a", "report"}


def test_what_would_run_follows_parameters_and_needs() -> None:
    plan = {
        "a": Stage("a", params=("x.seed",)),
        "b": Stage("b", needs=("a",)),
        "c": Stage("c", params=("x",)),
        "d": Stage("d"),
    }
    assert stage.would_run(plan, {"a", "b", "c", "d"}, []) == []
    assert stage.would_run(plan, {"a", "b", "c", "d"}, ["x.seed"]) == ["a", "b", "c"]
    assert stage.would_run(plan, {"a", "b", "c"}, []) == ["d"]
