"""Text to image from captions to results: the four stages, the library and the command, on a tiny teacher."""

import json

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

import dd
from dd import config
from dd.checkpoints.teachers import read_info
from dd.cli.main import app
from dd.distillation import stage as distill
from dd.distillation.batches import ShardPairs
from dd.errors import DDError
from dd.evaluation import stage as evaluate
from dd.metrics import distances
from dd.models.base import Filters
from dd.text import encoders as text_encoder
from dd.text.conditions import Captions
from dd.trajectories import stage as trajectories
from dd.trajectories.reader import open_shards
from dd.trajectories.trajectory import decode
from stages import teacher
from tests.helpers.tiny_janus import write_janus_project
from tests.helpers.tiny_text import LENGTH, SIZE, TEST, write_archive, write_text_params, write_text_project

pytest.importorskip("transformers", reason='the extra "text" is not installed')


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return text_encoder.read_minilm(write_archive(tmp_path_factory.mktemp("bert") / "model.zip"))


@pytest.fixture
def project(tmp_path, monkeypatch, encoder):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setattr(text_encoder, "_open", lambda name: encoder)
    monkeypatch.setattr(distances, "KID_SUBSETS", 2)
    write_text_project(tmp_path)
    return tmp_path


def make_pairs() -> None:
    trajectories.main("toy", trajectories.Engine(), "cpu")


def test_from_captions_to_rows_and_pictures(project):
    teacher.main("toy")
    make_pairs()
    plan = open_shards(project / "data" / "toy" / "trajectories").plan
    assert plan.conditions == 24
    assert len(plan.captions_sha256) == 64
    distill.main("toy")
    evaluate.main("toy")
    rows = json.loads((project / "results" / "toy" / "rows.json").read_text())["rows"]
    assert [row["label"] for row in rows] == ["teacher", "dd 0,2"]
    for row in rows:
        assert 0 <= row["caption_accuracy"] <= 1
        assert row["caption_accuracy_error"] is not None
        assert row["value"] > 0
        assert row["diversity"] is not None
    metrics = json.loads((project / "results" / "toy" / "metrics.json").read_text())
    assert "caption_accuracy" in metrics["teacher"]

    model = dd.load("toy")
    prompts = ["a red boot to the left of a bag", "zebra"]
    images = model.sample(prompts=prompts, steps=2)
    assert images.shape == (2, SIZE, SIZE, 3)
    assert (model.sample(prompts=prompts[1:] * 2, steps=2)[1] == images[1]).all()  # image i: (seed, i) and its prompt
    for given, text in (
        ({"prompts": []}, "toy draws from prompts: expected at least one .*, got none"),
        ({}, "got none"),
        ({"classes": [0], "prompts": ["a"]}, "got classes"),
        ({"prompts": [" "]}, "expected some words, got an empty one"),
    ):
        with pytest.raises(DDError, match=text):
            model.sample(**given)

    out = project / "grid.png"
    done = CliRunner().invoke(app, ["sample", "toy", "--prompt", "a bag", "--prompt", "a boot", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "2 images (a bag, a boot)" in done.output
    assert Image.open(out).height > 2 * SIZE  # words below


def test_captions_come_and_go_with_the_pairs(project):
    teacher.main("toy")
    make_pairs()
    shards = open_shards(project / "data" / "toy" / "trajectories")
    inputs = distill.check_inputs("toy", config.load_experiment("toy"), config.load_experiment("toy").distill, project)
    pairs = ShardPairs(shards, 4, 0, torch.device("cpu"), lookup=distill.lookup(inputs)).pairs(shards.held_out())
    assert isinstance(pairs.condition, Captions)
    assert pairs.condition.states.shape[:2] == (8, LENGTH)
    texts = pq.read_table(project / "captions" / "train.parquet")["caption"].to_pylist()
    (project / "captions" / "other.txt").write_text("\n".join(reversed(texts)))
    write_text_params(project, {"train": "captions/other.txt"})
    teacher.main("toy")
    with pytest.raises(DDError, match="was drawn from other captions: run the stage 'trajectories' again"):
        distill.lookup(inputs)
    again = trajectories.make_plan(
        config.load_experiment("toy"),
        trajectories.read_info(project / "data" / "toy" / "teacher"),
        project / "data" / "toy" / "teacher",
    )
    assert again.fingerprint != shards.plan.fingerprint


def test_captions_that_dvc_does_not_watch_are_named(project, caplog):
    kept = project / "captions" / "train.parquet"
    outside = kept.rename(project / "train.parquet")
    write_text_params(project, {"train": "train.parquet"})
    teacher.main("toy")
    assert f"DVC does not watch {outside}: link it into captions/" in caplog.text
    caplog.clear()
    kept.symlink_to(outside)
    write_text_params(project, {"train": "captions/train.parquet"})
    teacher.main("toy")
    assert "DVC does not watch" not in caplog.text


def test_a_file_without_scenes_has_no_caption_accuracy(project):
    (project / "captions" / "mine.txt").write_text("a red boot\na blue bag\n")
    write_text_params(project, {"test": "captions/mine.txt"})
    teacher.main("toy")
    stage = evaluate.Stage("toy", project)
    found = stage._measure(stage.settings.samplers[0], None)
    assert found.caption_accuracy is None
    assert "column 'attributes'" in found.missing["caption_accuracy"]
    assert found.images == TEST


def test_settings_that_do_not_belong_together(project):
    params = yaml.safe_load((project / "params.yaml").read_text())
    toy = params["experiments"]["toy"]
    del toy["condition"]
    with pytest.raises(DDError, match=r"condition 'text' and teacher.captions belong together"):
        config.validate(params)
    del toy["teacher"]["captions"]
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(DDError, match=r"tiny draws from captions \(all-minilm-l6-v2\): set condition and"):
        teacher.main("toy")


def test_a_caption_file_that_is_not_there(project):
    write_text_params(project, {"test": "captions/nothing.csv"})
    with pytest.raises(DDError, match=r"will need what is not here: test captions .*nothing\.csv: check the path"):
        teacher.main("toy")
    assert not (project / "data" / "toy" / "teacher").exists()


def test_a_teacher_of_transformers_from_its_whole_checkpoint(tmp_path, monkeypatch):
    """Prompts as ids: the stages, the library and a student in half the steps; tokens are the model's own."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setattr(distances, "KID_SUBSETS", 2)
    whole = write_janus_project(tmp_path)
    teacher.main("toy")
    made = read_info(tmp_path / "data" / "toy" / "teacher")
    assert (made.family, made.image_size) == ("janus", SIZE)
    make_pairs()
    distill.main("toy")
    evaluate.main("toy")
    rows = json.loads((tmp_path / "results" / "toy" / "rows.json").read_text())["rows"]
    assert [row["label"] for row in rows] == ["teacher", "dd 0,2"]
    assert all(row["value"] > 0 and 0 <= row["caption_accuracy"] <= 1 for row in rows)

    model = dd.load("toy", "cpu")
    prompts = ["a red boot to the left of a bag", "two bags"]
    images = model.sample(prompts=prompts, steps=2)
    assert images.shape == (2, SIZE, SIZE, 3)
    alone = model.sample(prompts=prompts[:1], steps=2)[0]
    assert abs(alone.astype(int) - images[0]).max() <= 1  # rounded from sums in another order
    encoded = text_encoder.open_encoder(made.text_encoder, 1).encode(prompts, made.transformer_config["cls_token_num"])
    expected = whole.generate(
        encoded.states[..., 0],
        attention_mask=encoded.mask.long(),
        generation_mode="image",
        do_sample=False,
        guidance_scale=2.0,
    )
    found = decode(model.teacher, encoded, Filters(guidance=2.0), lambda log_probs, _: log_probs.argmax(-1))
    assert torch.equal(found, expected)
