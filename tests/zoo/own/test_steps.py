"""Own images: what is written into both params.yaml, what runs, and that removing undoes adding."""

import signal
import subprocess
import sys

import pytest
import yaml

from dd.checkpoints import zoo as index
from dd.errors import DDError
from tests.helpers.paths import ROOT
from tests.helpers.small.own_images import make, texts
from zoo.own import steps


def test_names_that_are_taken(project):
    for name, expected in (("var-fashion", "experiment 'var-fashion' already"), ("fashion", "the zoo has fashion-ext")):
        with pytest.raises(DDError, match=expected):
            steps.refuse_taken(name)


def test_adding_keeps_comments_and_removing_undoes_it(project):
    before = texts(project)
    made = make(project)
    steps.refuse_taken("pets")
    steps.write(made)
    after = texts(project)
    assert steps.known_folder("pets") == str((project / "pictures").resolve())
    for name in ("params.yaml", "zoo/params.yaml"):
        assert {line for line in before[name].splitlines() if "#" in line} <= set(after[name].splitlines())
    assert set(yaml.safe_load(after["zoo/params.yaml"])["extractors"]) == {"pets", "pets-perceptual"}
    (project / "zoo" / "pets").mkdir()
    (project / "zoo" / "pets" / "extractor.safetensors").write_bytes(b"x")
    index.register(
        "pets-extractor", "extractor", project / "zoo" / "pets" / "extractor.safetensors", licence="", source=""
    )
    unfinished = ("zoo/work/pets-0123456789abcdef", "work/fedcba9876543210", "work/rates/pets")
    others = ("zoo/work/pets-2-0123456789abcdef", "work/0123456789abcdef")
    for place in ("data/pets", "models/pets", "results/pets", "zoo/data/pets", *unfinished, *others):
        (project / place).mkdir(parents=True)
    for place, name in ((unfinished[1], "pets"), (others[1], "pets-2")):
        (project / place / f"{name}.owner").touch()
    lock = "schema: '2.0'\nstages:\n  teacher@pets:\n    cmd: x\n  teacher@other:\n    cmd: y\n"
    (project / "dvc.lock").write_text(lock)
    said = steps.take_out("pets", keep_results=True)
    assert texts(project) == before | {"zoo/index.yaml": texts(project)["zoo/index.yaml"]}
    assert yaml.safe_load(texts(project)["zoo/index.yaml"]) == yaml.safe_load(before["zoo/index.yaml"])
    assert yaml.safe_load((project / "dvc.lock").read_text())["stages"] == {"teacher@other": {"cmd": "y"}}
    assert {"models/pets/", "params.yaml: experiments.pets", "zoo/params.yaml: teachers.pets"} <= set(said)
    assert (project / "results" / "pets").is_dir()
    assert not (project / "zoo" / "pets").exists()
    assert (project / "pictures").is_dir()
    assert not [place for place in unfinished if (project / place).exists()]
    assert all((project / place).is_dir() for place in others)
    with pytest.raises(DDError, match=r"no images 'pets' in zoo/params\.yaml; there are none"):
        steps.take_out("pets", keep_results=False)
    with pytest.raises(DDError, match="'fashion' ships with the project"):
        steps.take_out("fashion", keep_results=False)


def test_only_this_names_stages_are_run(project, monkeypatch):
    asked = []
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    who = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "start"], cwd=project, check=True)
    monkeypatch.setattr(steps, "_supervised", lambda _, command: asked.append(command))
    steps.run("pets")
    assert [command[1:] for command in asked] == [
        ("-m", "dvc", "repro", "zoo/dvc.yaml:teacher@pets", "zoo/dvc.yaml:reference@pets"),
        ("-m", "zoo.register", "pets"),
        ("-m", "dvc", "repro", "evaluate@pets"),
        ("-m", "dd.cli.main", "report", "pets"),
    ]


# A command that starts another one and waits, as DVC does, which takes a while to end.
STAGE = (
    "import signal, sys, time; signal.signal(2, lambda *_: (time.sleep(0.3), print('saved', flush=True), sys.exit()))"
)
PARENT = (
    "import signal, subprocess, sys; signal.signal(2, signal.SIG_IGN); subprocess.run([sys.executable, '-c', STAGE])"
)
OUTER = """
import sys
from pathlib import Path
from zoo.own import steps
sys.exit(steps._supervised(Path("."), (sys.executable, "-c", sys.argv[1])))
"""


def test_what_runs_saves_and_ends_when_the_command_is_stopped():
    """The signal reaches this one process alone, as from `kill` or a closed terminal."""
    inner = PARENT.replace("STAGE", repr(STAGE + "; print('began', flush=True); time.sleep(300)"))
    child = subprocess.Popen(
        [sys.executable, "-c", OUTER, inner],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "began\n"
    child.send_signal(signal.SIGINT)
    said, errors = child.communicate(timeout=120)  # the pipe closes when the last process has ended
    assert said == "saved\n"
    assert errors.rstrip().endswith("KeyboardInterrupt")
