"""The training loop: exact resume, accumulation, precisions, both heads, and what stops it."""

import json
from dataclasses import replace

import pytest
import torch

from dd.checkpoints import runs
from dd.distillation.frechet import PictureFeatures
from dd.distillation.task import Pairs, Task
from dd.distillation.training import train
from dd.errors import DDError
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from tests.helpers.small.training import make_task, same, weights
from tests.helpers.tiny import Cycle, settings, tiny_pairs, tiny_student


@pytest.mark.parametrize("stops", [(1,), (4, 6), (11,)])
def test_a_killed_run_ends_with_the_same_weights(family, teacher, pairs, tmp_path, stops):
    """Bit for bit, with both optimizers, averaged weights, accumulation and curves."""
    config = settings(muon_lr=0.01, weight_decay=0.1, global_batch=8, student={"noise_logits": True})

    def run(folder, stop=None):
        student = tiny_student(teacher, family, noise_logits=True)
        return train(student, make_task(teacher, pairs, folder, stop=stop), config)

    undisturbed = run(tmp_path / "a")
    assert undisturbed.student.training is False
    assert not any(value.isnan().any() for value in weights(undisturbed).values())
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "b", stop=2 * stop + 1)
    resumed = run(tmp_path / "b")
    assert same(weights(resumed), weights(undisturbed))
    assert resumed.curves == undisturbed.curves
    assert {"accuracy/t0", "accuracy/t2", "held_out/t0", "loss/cross_entropy"} < resumed.curves.keys()
    assert [step for step, _ in resumed.curves["accuracy/t2"]] == [0, 4, 8, 12]
    record = json.loads((tmp_path / "b" / "checkpoint" / "run.json").read_text())
    assert (record["step"], record["pairs"]) == (12, {"given": 24})
    finished = run(tmp_path / "b", stop=0)  # nothing is left to do, no batch is asked for
    assert same(weights(finished), weights(undisturbed))


def test_accumulated_parts_are_one_larger_batch(family, teacher, pairs, tmp_path):
    probe = tiny_pairs(teacher, 8, seed=5)

    def run(name, batch, total):
        task = make_task(teacher, pairs, tmp_path / name, batch)
        outcome = train(tiny_student(teacher, family), task, settings(batch=batch, global_batch=total))
        with torch.no_grad():
            return outcome.student(probe.noise, torch.zeros(8, dtype=torch.int64), probe.condition).logits

    whole, parts, half = run("whole", 8, 8), run("parts", 4, 8), run("half", 4, 4)
    assert (parts - whole).abs().max() < 0.05 * (half - whole).abs().max()


def test_parts_that_do_not_have_equal_shares_of_the_points_are_weighted(family, teacher, pairs, tmp_path):
    """Three points in parts of four: means over unknown positions of the parts add up to the mean of all."""
    gradients = []
    for batch in (8, 4):
        student = tiny_student(teacher, family)
        config = settings(steps=1, batch=batch, global_batch=8, timesteps=(0, 1, 2), lr=1e-12, warmup=0, clip=1e9)
        outcome = train(student, make_task(teacher, pairs, tmp_path / str(batch), batch), config)
        gradients.append((outcome.curves["gradient_norm"][0][1], outcome.curves["loss/cross_entropy"][0][1]))
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-5)


def test_checkpointed_blocks_and_chunks_change_nothing_but_rounding(family, teacher, pairs, tmp_path):
    size = teacher.tokenizer.image_size
    network = SmallClassifier(ClassifierConfig(3, size, (4, 5), (0, 0))).eval().requires_grad_(False)
    curves = []
    for name, more in {"a": {}, "b": {"checkpoint_blocks": True, "decode_chunk": 1}}.items():
        task = make_task(teacher, pairs, tmp_path / name, distance=network.perceptual_distance)
        config = settings(steps=4, losses={"perceptual": 1.0}, **more)
        curves.append(train(tiny_student(teacher, family), task, config).curves)
    assert curves[0].keys() == curves[1].keys()
    for name, points in curves[0].items():
        assert points == [(step, pytest.approx(value, rel=1e-4)) for step, value in curves[1][name]], name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_in_both_precisions(family, teacher, pairs, tmp_path, precision):
    few = Pairs(pairs.noise[:4], pairs.tokens[:4], pairs.condition[:4])
    task = Task(teacher, Cycle(few, 4), few, tmp_path)
    config = settings(steps=60, lr=1e-2, precision=precision, evaluate_every=30, checkpoint_every=60, log_every=10)
    outcome = train(tiny_student(teacher, family), task, config)
    losses = [value for _, value in outcome.curves["held_out/t0"]]
    assert losses[-1] < 0.6 * losses[0]
    assert outcome.curves["accuracy/t0"][-1][1] > outcome.curves["accuracy/t0"][0][1]
    assert {value.dtype for value in weights(outcome).values() if value.is_floating_point()} == {torch.float32}


def test_probe_and_curves_are_asked_at_every_measurement(family, teacher, pairs, tmp_path):
    steps, seen = [], []

    def probe(student, step):
        assert not student.training
        return {"fd": float(step)} if step % 8 == 0 else {}

    def on_curves(curves):
        seen.append(dict(curves))
        steps.append(curves["probe/fd"][-1])

    train(
        tiny_student(teacher, family), make_task(teacher, pairs, tmp_path, probe=probe, on_curves=on_curves), settings()
    )
    assert steps == [(0, 0.0), (0, 0.0), (8, 8.0), (8, 8.0)]
    assert "gradient_norm" in seen[-1]


def broken(pairs: Pairs, batch: int, at: int) -> Cycle:
    """Batches of which number `at` holds a noise that is not a number."""
    noise = pairs.noise.clone()
    noise[at * batch, 0] = float("nan")
    return Cycle(replace(pairs, noise=noise), batch)


def test_a_loss_that_is_not_finite_stops_with_the_step(family, teacher, pairs, tmp_path):
    task = replace(make_task(teacher, pairs, tmp_path), pairs=broken(pairs, 4, at=4))
    with pytest.raises(DDError) as caught:
        train(tiny_student(teacher, family), task, settings(log_every=100, checkpoint_every=3))
    assert str(caught.value) == (
        "distill: the loss is not finite at step 5 (cross_entropy nan, gradient_norm nan): lower lr or clip; "
        f"last good checkpoint: {tmp_path / 'checkpoint'} (step 3)"
    )
    state = torch.load(tmp_path / "checkpoint" / "state.pt", weights_only=True)
    assert not any(value.isnan().any() for value in state["model"].values())
    early = replace(make_task(teacher, pairs, tmp_path / "early"), pairs=broken(pairs, 4, at=0))
    with pytest.raises(DDError, match=r"at step 1 .*; last good checkpoint: none$"):
        train(tiny_student(teacher, family), early, settings())


def test_a_diverging_run_stops(family, teacher, pairs, tmp_path):
    config = settings(steps=200, lr=30.0, clip=1e9, log_every=1, warmup=0)
    with pytest.raises(
        DDError, match=r"distill: the loss (has grown 3-fold|is not finite) at step \d+ \(cross_entropy "
    ):
        train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path), config)


def test_checkpoints_of_other_runs_are_refused(family, teacher, pairs, tmp_path):
    train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path), settings(steps=3))
    with pytest.raises(
        DDError, match=r"checkpoint belongs to another run: expected .* got \w{16}: delete it, or train in"
    ):
        train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path), settings(steps=3, lr=0.5))
    file = tmp_path / "checkpoint" / "state.pt"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DDError, match=r"checkpoint is damaged \(.*\): delete it, training starts anew"):
        train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path), settings(steps=3))
    file.write_bytes(whole)
    with pytest.raises(DDError, match=r"checkpoint is of another student \(.*\): delete it"):
        train(tiny_student(teacher, family, noise_logits=True), make_task(teacher, pairs, tmp_path), settings(steps=3))


def test_points_beyond_the_groups_are_refused(family, teacher, pairs, tmp_path):
    groups = len(teacher.groups)
    with pytest.raises(DDError, match=f"timesteps: expected points below the teacher's {groups} groups, got {groups};"):
        train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path), settings(timesteps=(0, groups)))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(teacher, family, pairs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.torch, "save", full)
    with pytest.raises(DDError, match=r"cannot write .*checkpoint \(.*No space left on device\): free some space"):
        train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path), settings(steps=3))


def test_held_out_measure_is_the_same_in_parts(family, teacher, pairs, tmp_path):
    """The measure goes through the held-out pairs a batch at a time."""
    curves = [
        train(
            tiny_student(teacher, family),
            make_task(teacher, pairs, tmp_path / str(batch), batch),
            settings(steps=1, batch=batch),
        ).curves
        for batch in (3, 8)
    ]
    for name in ("accuracy/t0", "accuracy/t2", "held_out/t0", "held_out/t2"):
        assert curves[0][name][0][1] == pytest.approx(curves[1][name][0][1], rel=1e-5)


def test_without_held_out_pairs_there_are_no_such_curves(family, teacher, pairs, tmp_path):
    task = replace(make_task(teacher, pairs, tmp_path), held_out=pairs.take(slice(0)))
    assert train(tiny_student(teacher, family), task, settings(steps=2)).curves.keys() == {
        "loss/cross_entropy",
        "gradient_norm",
    }


OWN_PREFIX = {"losses": {"own_prefix": 1.0}}
SCORE = {"second": {"steps": 4, "warmup": 1, "score": 1.0}, "losses": {"own_prefix": 1.0}}
CONDITIONAL = {"second": {"steps": 4, "warmup": 1, "conditional_score": 1.0}, "losses": {"own_prefix": 1.0}}
OWN_START = {"second": {"steps": 4, "warmup": 1, "score": 1.0, "own_start": True}, "losses": {"own_prefix": 1.0}}
FRECHET = {
    "second": {"steps": 4, "warmup": 1, "frechet": 0.1, "pairs": 0.5, "frechet_memory": 8},
    "losses": {"perceptual_network": "ours"},
}


@pytest.mark.parametrize(
    ("given", "term"),
    [
        (OWN_PREFIX, "own_prefix"),
        (SCORE, "score"),
        (CONDITIONAL, "conditional_score"),
        (OWN_START, "score"),
        (FRECHET, "frechet"),
    ],
)
@pytest.mark.parametrize("stop", [4, 5, 7])
def test_terms_with_a_state_of_their_own_are_trained_and_resume_exactly(
    family, teacher, pairs, tmp_path, given, term, stop
):
    config = settings(**given, steps=4 if "second" in given else 8, checkpoint_every=1 if stop == 4 else 3)
    picture_features = PictureFeatures(lambda images: images.mean((2, 3)), torch.randn(50, 3) / 10)

    def run(folder, config, stop=None):
        task = make_task(teacher, pairs, folder, stop=stop, picture_features=picture_features)
        return train(tiny_student(teacher, family), task, config)

    undisturbed = run(tmp_path / "a", config)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", config, stop=stop)
    resumed = run(tmp_path / "b", config)
    assert same(weights(resumed), weights(undisturbed))
    assert resumed.curves == undisturbed.curves
    assert f"loss/{term}" in undisturbed.curves
    assert undisturbed.steps == 8
    assert not same(weights(undisturbed), weights(run(tmp_path / "c", settings())))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
