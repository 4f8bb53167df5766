"""The plan of one's own images follows the folder, the minutes and the kind of labels."""

import shutil

import pytest
from PIL import Image

from dd.errors import DDError
from tests.helpers.small.own_images import make, texts
from zoo.own import plan
from zoo.own.speed import Costs

COSTS = Costs({"extractor": 0.05, "tokenizer": 0.1, "teacher": 0.05, "distill": 0.6, "draw": 0.01})


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
