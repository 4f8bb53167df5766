"""The project that `python -m pipeline.bench.overhead` measures in."""

import yaml

from pipeline.bench import overhead, project


def test_two_chains_and_a_report_that_needs_both() -> None:
    stages = yaml.safe_load(project._stages())["stages"]
    assert len(stages) == 9
    assert stages["evaluate-two"]["deps"] == ["work.py", "distill-two"]
    assert stages["report"]["deps"] == ["evaluate-one", "evaluate-two"]
    assert stages["report"]["outs"] == ["report/all"]


def test_processes_of_a_stage_are_known_by_their_words() -> None:
    assert project._of_a_stage([b"python", b"work.py", b"teacher-one"])
    assert project._of_a_stage([b"python", b"-m", b"dvc", b"repro"])
    assert not project._of_a_stage([b"bash"])


def test_the_least_of_all_runs_counts(tmp_path, monkeypatch) -> None:
    times = iter([(3.0, 2.0), (2.0, 2.5), (11.0, 4.0), (12.0, 3.0), (20.0, 5.0), (21.0, 6.0)])
    monkeypatch.setattr(overhead, "measure", lambda *_: next(times))
    monkeypatch.setattr(overhead.graph, "read", lambda root: {})
    monkeypatch.setattr(overhead.graph, "choose", lambda plan, targets: dict.fromkeys("abc"))
    rows = overhead.unchanged(tmp_path, "http://127.0.0.1:9/api", 2)
    assert [(row["wall_s"], row["processor_s"]) for row in rows] == [(2.0, 2.0), (11.0, 3.0), (20.0, 5.0)]
    assert [row["beyond_dvc_s_per_stage"] for row in rows] == [None, 3.0, 6.0]
