"""The plan is DVC's own graph; wrong projects and wrong targets are one clear line."""

import errno
from pathlib import Path

import pytest

from dd.errors import DDError
from pipeline import graph
from pipeline.graph import Stage
from tests.pipeline.conftest import Toy


def test_the_plan_is_dvcs_graph(toy: Toy) -> None:
    plan = graph.read(toy.root)
    assert {name: set(node.needs) for name, node in plan.items()} == {
        "trajectories@toy-a": set(),
        "trajectories@toy-b": set(),
        "distill@toy-a": {"trajectories@toy-a"},
        "distill@toy-b": {"trajectories@toy-b"},
        "evaluate@toy-a": {"distill@toy-a"},
        "evaluate@toy-b": {"distill@toy-b"},
        "report": {"evaluate@toy-a", "evaluate@toy-b"},
    }
    names = list(plan)
    assert all(names.index(need) < names.index(name) for name, node in plan.items() for need in node.needs)
    assert plan["distill@toy-a"].outs == ("models/toy-a",)
    assert [plan[name].accelerator for name in ("distill@toy-a", "report")] == [True, False]
    assert graph.experiments(plan) == ["toy-a", "toy-b"]


def test_targets(toy: Toy) -> None:
    plan = graph.read(toy.root)
    assert list(graph.choose(plan, ["distill@toy-a"])) == ["trajectories@toy-a", "distill@toy-a"]
    assert set(graph.choose(plan, ["toy-b"])) == {"trajectories@toy-b", "distill@toy-b", "evaluate@toy-b"}
    assert set(graph.choose(plan, ["trajectories"])) == {"trajectories@toy-a", "trajectories@toy-b"}
    assert len(graph.choose(plan, ["report"])) == len(graph.choose(plan, [])) == 7


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("toy-c", "did you mean toy-b or toy-a?"),
        ("destill@toy-a", "did you mean distill@toy-a"),
        ("nonsense", "there are toy-a, toy-b, trajectories, distill, evaluate, report"),
    ],
)
def test_wrong_target(toy: Toy, target: str, hint: str) -> None:
    with pytest.raises(DDError) as caught:
        graph.choose(graph.read(toy.root), [target])
    assert f"found '{target}': {hint}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cycle_between_stages(toy: Toy) -> None:
    text = (toy.root / "dvc.yaml").read_text()
    head = "      cmd: python toy.py trajectories ${key}\n      deps:\n"
    (toy.root / "dvc.yaml").write_text(text.replace(head, head + "        - results/${key}/rows.json\n"))
    with pytest.raises(DDError, match=r"^DVC cannot read the pipeline: .*[Cc]ycl.*; mend it until `dvc dag` works$"):
        graph.read(toy.root)


def test_a_cycle_in_order() -> None:
    stages = {"a": Stage("a", needs=("b",)), "b": Stage("b", needs=("a",))}
    with pytest.raises(DDError, match="found a -> b -> a: remove one of these dependencies"):
        graph.in_order(stages)


def test_no_dvc_no_stages_no_yaml(tmp_path: Path, toy: Toy) -> None:
    with pytest.raises(DDError, match=r"found no \.dvc in .*: run `dvc init`"):
        graph.read(tmp_path)
    (toy.root / "dvc.yaml").write_text("stages: [\n")
    with pytest.raises(DDError, match=r"DVC cannot read the pipeline: .*dvc\.yaml") as caught:
        graph.read(toy.root)
    assert "\n" not in str(caught.value)
    (toy.root / "dvc.yaml").unlink()
    with pytest.raises(DDError, match=r"found no dvc\.yaml"):
        graph.read(toy.root)


def test_dvcs_folder_of_locks_may_belong_to_somebody_else(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """/var/tmp/dvc, HOME or a checkout that cannot be written: the first has a setting, the last is the user's."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", place)

    monkeypatch.setattr("dvc.repo.Repo.__init__", refuse)
    place = "/var/tmp/dvc"
    with pytest.raises(
        DDError, match=r"^no permission \(/var/tmp/dvc\), .*: set DVC_SITE_CACHE_DIR to a folder of yours$"
    ):
        graph.read(toy.root)
    place = str(toy.root / ".dvc" / "tmp")
    with pytest.raises(PermissionError):
        graph.read(toy.root)


def test_a_dvc_lock_in_mid_merge(toy: Toy) -> None:
    lock = toy.root / "dvc.lock"
    lock.write_text("<<<<<<< HEAD\n" + lock.read_text() + "=======\n>>>>>>> other\n")
    with pytest.raises(DDError, match=r"found a merge conflict in line 1: run `python -m pipeline.merge_lock`"):
        graph.read(toy.root)


def test_a_dvc_lock_that_is_no_yaml(toy: Toy) -> None:
    (toy.root / "dvc.lock").write_text("stages: [\n")
    with pytest.raises(
        DDError, match=r"^DVC cannot read the pipeline: .*dvc\.lock.*; mend it until `dvc dag` works$"
    ) as e:
        graph.read(toy.root)
    assert "\n" not in str(e.value)


def test_another_dvc_yaml_runs_only_when_it_is_needed(toy: Toy) -> None:
    (toy.root / "zoo").mkdir()
    (toy.root / "zoo" / "dvc.yaml").write_text(
        "stages:\n  train:\n    cmd: touch weights\n    outs:\n      - weights\n"
    )
    plan = graph.read(toy.root)
    assert plan["zoo/dvc.yaml:train"].outs == ("zoo/weights",)
    assert "zoo/dvc.yaml:train" not in graph.choose(plan, [])
    assert list(graph.choose(plan, ["zoo/dvc.yaml:train"])) == ["zoo/dvc.yaml:train"]
