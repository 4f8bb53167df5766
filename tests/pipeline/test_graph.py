"""The plan is DVC's own graph; wrong projects and wrong targets are one clear line."""

import errno
import json
from pathlib import Path

import pytest

from dd.errors import DDError
from pipeline import graph, provenance, stage
from pipeline.checks import check_run
from pipeline.graph import Stage
from pipeline.stage import Options
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


def test_a_dvc_lock_that_is_not_the_committed_one(toy: Toy) -> None:
    assert provenance.warning(toy.root) is None
    with (toy.root / "dvc.lock").open("a") as lock:
        lock.write("# changed\n")
    text = "dvc.lock differs from the commit: commit it, or the results of this run belong to no revision"
    assert provenance.warning(toy.root) == text
    assert f"warning: {text}" in toy.run("trajectories@toy-a").replace("\n", " ")


def test_another_dvc_yaml_runs_only_when_it_is_needed(toy: Toy) -> None:
    (toy.root / "zoo").mkdir()
    (toy.root / "zoo" / "dvc.yaml").write_text(
        "stages:\n  train:\n    cmd: touch weights\n    outs:\n      - weights\n"
    )
    plan = graph.read(toy.root)
    assert plan["zoo/dvc.yaml:train"].outs == ("zoo/weights",)
    assert "zoo/dvc.yaml:train" not in graph.choose(plan, [])
    assert list(graph.choose(plan, ["zoo/dvc.yaml:train"])) == ["zoo/dvc.yaml:train"]


def test_wrong_numbers(toy: Toy) -> None:
    with pytest.raises(DDError, match="expected an accelerator_limit of 1 or more stages at once, found 0: use 1"):
        check_run(toy.root, [], [], Options(accelerator_limit=0))
    with pytest.raises(DDError, match="expected dask_workers of 0"):
        check_run(toy.root, [], [], Options(dask_workers=-1))


def test_dask_that_is_not_there(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.checks.find_spec", lambda _: None)
    with pytest.raises(DDError, match=r"expected prefect-dask for dask_workers, found none: pip install 'dd\[dask\]'"):
        check_run(toy.root, [], [], Options(dask_workers=1))


def test_what_dvc_finds_unchanged(toy: Toy) -> None:
    plan = graph.read(toy.root)
    assert stage.unchanged(toy.root, plan, print) == frozenset(plan)
    text = (toy.root / "params.yaml").read_text()
    (toy.root / "params.yaml").write_text(text.replace("lr: 0.001  #", "lr: 0.002  #"))
    assert frozenset(plan) - stage.unchanged(toy.root, plan, print) == {"distill@toy-a", "evaluate@toy-a", "report"}


def test_the_offer_of_the_ui(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy.root)
    from pipeline.flows import choices

    assert choices(toy.root)[:3] == ["toy-a", "toy-b", "trajectories"]
    assert set(graph.names(graph.read(toy.root))) == set(choices(toy.root))
    assert json.dumps(choices(Path("/nonexistent"))) == "[]"
