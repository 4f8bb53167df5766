"""Whole runs from the terminal without a server: outcomes, failures, retries, the accelerator, every way to stop."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from pipeline.processes import accelerator
from tests.pipeline.conftest import Toy, busy, until

SECOND = "7 stages: 7 unchanged"


def change_lr(toy: Toy, value: str, experiment: str = "toy-a") -> tuple[str, ...]:
    return ("-S", f"{experiment}.distill.lr={value}")


def test_outcomes_are_dvcs_own(toy: Toy) -> None:
    assert SECOND in toy.run()
    output = toy.run(*change_lr(toy, "0.5"))
    assert "distill@toy-a: ran in" in output
    assert "7 stages: 3 ran, 4 unchanged" in output
    assert "7 stages: 3 restored, 4 unchanged" in toy.run(*change_lr(toy, "0.001"))
    output = toy.run("evaluate@toy-b", "--force", "--verbose", "--dask-workers", "3")
    assert "3 stages: 3 ran" in output
    assert "trajectories@toy-b | with 3 Dask workers" in output
    assert "git add" not in output
    assert toy.dvc("status").strip() == "Data and pipelines are up to date."


def test_what_the_remote_has_is_fetched(toy: Toy) -> None:
    toy.dvc("remote", "add", "-q", "-d", "store", str(toy.root.parent / "store"))
    toy.dvc("push", "-q")
    for folder in (".dvc/cache", "data", "models", "report"):
        shutil.rmtree(toy.root / folder)
    assert "7 stages: 5 restored, 2 unchanged" in toy.run("--pull")
    assert (toy.root / "models" / "toy-a" / "student").read_text() == "0.001"
    assert not toy.log()


def test_a_failing_stage_stops_only_what_needs_it(toy: Toy) -> None:
    toy.control(distill_toy_a={"exit": 3})
    output = toy.run(*change_lr(toy, "0.5"), *change_lr(toy, "0.5", "toy-b"), status=1)
    assert "distill@toy-a failed: expected a fine day, found rain: wait (exited with 3)" in output
    assert "evaluate@toy-a skipped: it needs distill@toy-a" in output
    assert "evaluate@toy-b: ran in" in output
    assert "7 stages: 2 ran, 2 unchanged, 1 failed, 2 skipped" in output
    assert (toy.root / "failures").read_text() == "1"  # a bug is not tried again
    assert not (toy.root / "models" / "toy-a").exists()
    toy.control()
    assert "7 stages: 3 ran, 4 unchanged" in toy.run()
    assert [line for line in toy.log() if "toy-a" in line] == [f"distill@toy-a {step}" for step in range(4)]


def test_a_temporary_failure_is_tried_again(toy: Toy) -> None:
    toy.control(distill_toy_a={"exit": 75, "times": 1})
    output = toy.run("distill@toy-a", "--verbose", *change_lr(toy, "0.5"))
    assert "distill@toy-a: temporary failure: expected a fine day, found rain: wait; next try in 2 s" in output
    assert "2 stages: 1 ran, 1 unchanged" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_and_is_taken_up(toy: Toy, number: signal.Signals) -> None:
    toy.control(distill_toy_a={"pause": 1.2, "deaf": True, "away": True}, trajectories_toy_b={"pause": 60})
    child = toy.start(*change_lr(toy, "0.5"), "-S", "toy-b.trajectories.seed=5", "--accelerator-limit", "2")
    until(lambda: len(toy.log()) >= 1 and len(toy.alive()) >= 3, what="a step")
    start = time.monotonic()
    child.send_signal(number)
    until(lambda: not toy.survivors(), 30, "all to end")
    assert time.monotonic() - start < 3.0 + 0.5 * busy()
    output = child.communicate()[0]
    if number != signal.SIGKILL:
        assert child.returncode == 130
        assert "finished shards and checkpoints are kept" in output
        assert "Traceback" not in output
    done = toy.log()
    assert not (toy.root / "models" / "toy-a").exists()
    assert not (toy.root / "data" / "toy-b" / "trajectories").exists()
    assert accelerator.holders(toy.root / ".dvc" / "tmp" / "dd") == ""
    toy.control()
    toy.dvc("repro")
    assert sorted(line for line in toy.log() if "distill@toy-a" in line) == [f"distill@toy-a {i}" for i in range(4)]
    assert toy.log()[: len(done)] == done
    assert SECOND in toy.run()


def test_one_place_on_the_accelerator(toy: Toy) -> None:
    # Long enough that a busy machine starts the second one while the first still works.
    toy.control(distill_toy_a={"pause": 1.0}, distill_toy_b={"pause": 1.0})
    output = toy.run("distill", "-S", "distill.lr=0.5", "--verbose")
    assert "waiting for the accelerator (distill@toy-" in output
    first = toy.log()[0].split()[0]
    assert [line.split()[0] for line in toy.log()[:4]] == [first] * 4  # not mixed


def test_two_runs_at_once_work(toy: Toy) -> None:
    toy.control(distill_toy_a={"pause": 0.2})
    params = (toy.root / "params.yaml").read_text()
    (toy.root / "params.yaml").write_text(params.replace("lr: 0.001  #", "lr: 0.5  #"))
    children = [toy.start("report"), toy.start("report")]
    outputs = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert sum(" ran" in output for output in outputs) >= 1
    assert len(toy.log()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("toy-x",), "error: expected an experiment, a stage or a group of stages, found 'toy-x': did you mean toy-b"),
        (("-S", "distill.lrr=1"), "experiments.toy-a.distill.lrr: unknown parameter, did you mean lr?"),
        (
            ("--accelerator-limit", "0"),
            "error: expected an accelerator_limit of 1 or more stages at once, found 0: use 1",
        ),
    ],
)
def test_bad_input_is_one_line(toy: Toy, arguments: tuple[str, ...], message: str) -> None:
    output = toy.run(*arguments, status=2)
    assert message in output
    assert len(output.strip().splitlines()) == 1
    assert not toy.log()


def test_an_unreachable_server_is_one_line(toy: Toy) -> None:
    output = toy.run(api="http://127.0.0.1:9/api", status=2)
    assert "expected a Prefect API at http://127.0.0.1:9/api (PREFECT_API_URL), found no answer" in output
    assert len(output.strip().splitlines()) == 1


def test_outside_of_a_project(toy: Toy, tmp_path: Path) -> None:
    outside = Toy(tmp_path / "elsewhere", toy.env)
    outside.root.mkdir()
    assert "found no .dvc in" in outside.run(status=2)


ALWAYS = """  code:
    foreach: ${experiments}
    do:
      cmd: echo ${experiments.${key}.trajectories.seed} > code-${key}
      always_changed: true
      outs:
        - code-${key}:
            cache: false
"""


def test_stages_that_always_run_are_one_quick_step(toy: Toy) -> None:
    text = (toy.root / "dvc.yaml").read_text()
    text = text.replace("      deps:\n        - toy.py\n", "      deps:\n        - toy.py\n        - code-${key}\n", 1)
    (toy.root / "dvc.yaml").write_text(
        text.replace("stages:\n", "stages:\n" + ALWAYS, 1).replace(
            "echo ${experiments.${key}.trajectories.seed}", "cat source"
        )
    )
    (toy.root / "source").write_text("1\n")
    assert "code: 2 of 2 files changed in " in toy.run()
    output = toy.run()
    assert "code: nothing changed in " in output
    assert "7 stages: 7 unchanged" in output  # the step is not one of them
    (toy.root / "source").write_text("2\n")
    assert "trajectories@toy-a: ran" in toy.run()
    (toy.root / "source").unlink()
    output = toy.run(status=1)
    assert "code failed: " in output
    assert "7 skipped" in output
