"""dd-cli images: the plan, the two params.yaml, and that removing undoes adding."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from dd.checkpoints import zoo as index
from dd.errors import DDError
from tests.helpers.paths import ROOT
from zoo import settings
from zoo.own import plan, steps
from zoo.own.speed import Costs

COSTS = Costs({"extractor": 0.05, "tokenizer": 0.1, "teacher": 0.05, "distill": 0.6, "draw": 0.01})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Both params.yaml as they ship, the zoo's index, and two pictures folders: colour and grey."""
    root = tmp_path / "project"
    (root / "zoo" / "shipped").mkdir(parents=True)
    for name in (
        "params.yaml",
        "dvc.yaml",
        "zoo/params.yaml",
        "zoo/dvc.yaml",
        "zoo/shipped/params.yaml",
        "zoo/index.yaml",
    ):
        shutil.copy(ROOT / name, root / name)
    monkeypatch.setenv("DD_ROOT", str(root))
    for module in (settings, steps):
        if hasattr(module, "HERE"):
            monkeypatch.setattr(module, "HERE", root / "zoo")
    random = np.random.default_rng(0)
    for number in range(60):
        for name in ("cat", "dog", "owl"):
            (root / "pictures" / name).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "pictures" / name / f"{number}.png")
    return root


def texts(root):
    return {name: (root / name).read_text() for name in ("params.yaml", "zoo/params.yaml", "zoo/index.yaml")}


def make(root, **options):
    given = {"test_folder": None, "size": 32, "minutes": 35.0, "licence": "mine", "probe": False} | options
    return plan.make_plan(options.pop("name", "pets"), root / "pictures", **given)[0]


def test_the_plan_follows_the_folder(project):
    made = make(project)
    assert (made.values["train"], made.values["test"]) == (144, 36)
    assert made.values["classes"] == 3
    assert made.values["codes"] == 256
    assert made.values["batch"] == 18  # an eighth of the images
    assert made.values["images"] == 144
    zoo = made.zoo()
    assert zoo.datasets["pets"].licence == "mine"
    assert zoo.tokenizers["pets"].extractor == "pets-perceptual"
    assert made.experiment().evaluate.protocol == "fd-pets"
    for path in (project / "pictures").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    grey = make(project)
    assert grey.values["codes"] == 32
    assert not grey.values["colour"]


@pytest.mark.parametrize("size", plan.SIZES)
def test_every_size_fits_its_tokenizer(project, size):
    from dd.models.registry import build_tokenizer

    made = make(project, size=size).zoo().tokenizers["pets"]
    tokenizer = build_tokenizer(made.family, made.config, "meta")
    assert tokenizer.image_size == size
    assert tokenizer.groups.length == 64


def test_lengths_follow_the_minutes(project):
    short, long = (plan._timed(make(project), COSTS, minutes) for minutes in (10, 35))
    for stage in ("tokenizer", "teacher"):
        assert short.values["steps"][stage] < long.values["steps"][stage]
    assert sum(long.seconds.values()) < 35 * 60 * 1.1
    warmup = long.zoo().tokenizers["pets"].train
    assert warmup.warmup <= long.values["steps"]["tokenizer"] / 10
    assert long.lines()[0].startswith("pets: 144 training and 36 test images, 3 classes, colour, cut to squares")
    assert long.lines()[-1].startswith("  together")


def test_fewer_minutes_than_the_fewest_steps_need_are_told_of(project):
    assert "longer than" not in plan._timed(make(project), COSTS, 35).lines()[-1]
    short = plan._timed(make(project, minutes=1.0), COSTS, 1)
    assert short.lines()[-1].startswith("longer than the 1 minutes asked for: fewer steps would leave networks")


def test_one_class_needs_no_labels(project):
    shutil.rmtree(project / "pictures" / "dog")
    shutil.rmtree(project / "pictures" / "owl")
    assert make(project).zoo().extractors["pets"].target == "rotations"


def test_captions_make_a_text_experiment(project):
    rows = [f'{{"file_name": "cat/{n}.png", "text": "cat number {n}"}}' for n in range(60)]
    (project / "pictures" / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    made = make(project)
    assert made.experiment().condition == "text"
    assert made.experiment().teacher.captions.train == "zoo/data/pets/train/captions.parquet"
    assert made.zoo().teachers["pets"].text_encoder == "all-minilm-l6-v2"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": 28}, "--size: expected one of 16, 32, 64, 128, got 28"),
        ({"minutes": 0.0}, "--minutes: expected a number above 0, got 0"),
        ({"name": "../x"}, r"name: expected lower-case letters, digits, '-' and '_' .* got '\.\./x'"),
        ({"name": "v1.5"}, r"got 'v1\.5'"),
        ({"name": "con"}, "got 'con'"),
    ],
)
def test_mistakes(project, options, expected):
    before = texts(project)
    with pytest.raises(DDError, match=expected):
        make(project, **options) if "name" not in options else plan.check_name(options["name"])
    assert texts(project) == before


def test_a_test_folder_with_other_classes_is_refused_before_anything_is_written(project):
    before = texts(project)
    shutil.copytree(project / "pictures" / "cat", project / "test" / "cat")
    with pytest.raises(DDError, match=r"test_folder has classes cat \(1\), expected cat, dog, owl \(3\)"):
        make(project, test_folder=project / "test")
    assert texts(project) == before


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
    assert "models/pets/" in said
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


def test_nothing_of_ones_own_ships():
    """README's `dvc repro zoo/dvc.yaml` trains what is the user's and nothing else."""
    mine = settings.load_settings(ROOT / "zoo" / "params.yaml")
    assert not any(getattr(mine, group) for group in settings.Zoo.model_fields)
