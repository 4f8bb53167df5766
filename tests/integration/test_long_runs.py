"""A run over days: checkpoints by signal and by clock, full disks, trackers, what accelerate must not be set to."""

import itertools
import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from accelerate.tracking import WandBTracker

from dd.checkpoints import runs
from dd.checkpoints.runs import write
from dd.distillation import training
from dd.distillation.task import Pairs
from dd.distillation.training import train
from dd.errors import DDError, Stopped
from tests.helpers.small.training import make_task, same, weights
from tests.helpers.tiny import Cycle, settings, tiny_student


def test_a_disk_that_fills_up_later_keeps_the_checkpoint_before(teacher, family, pairs, tmp_path, monkeypatch):
    """The second checkpoint meets a full disk in mid-file; with space again the run ends as an undisturbed one."""
    real, calls = torch.save, []

    def save(state, file):
        calls.append(file)
        if len(calls) == 2:
            file.write_bytes(b"half of it")
            raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")
        real(state, file)

    undisturbed = train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path / "a"), settings())
    monkeypatch.setattr(runs.torch, "save", save)
    with pytest.raises(DDError, match=r"cannot write .*checkpoint \(.*failed writing file\): free some space and run"):
        train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path / "b"), settings())
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["checkpoint"]
    assert json.loads((tmp_path / "b" / "checkpoint" / "run.json").read_text())["step"] == 3
    again = train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path / "b"), settings())
    assert same(weights(again), weights(undisturbed))


class Signalled(Cycle):
    """Batches before some of which this process gets a signal."""

    def __init__(self, pairs: Pairs, batch: int, signals: dict[int, signal.Signals]) -> None:
        super().__init__(pairs, batch)
        self.signals = signals

    def __iter__(self):
        for batch in super().__iter__():
            if self.given in self.signals:
                os.kill(os.getpid(), self.signals.pop(self.given))
            yield batch


def test_sigterm_saves_and_ends_and_sigusr1_saves_and_goes_on(family, teacher, pairs, tmp_path):
    config, saved = settings(checkpoint_every=1000), []
    undisturbed = train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path / "a"), config)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    source = Signalled(pairs.take(slice(24)), 4, {3: signal.SIGUSR1, 7: signal.SIGTERM})
    task = replace(make_task(teacher, pairs, tmp_path / "b"), pairs=source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "write", lambda *args: saved.append(args[2]["step"]) or write(*args))
        with pytest.raises(Stopped) as stopped:
            train(tiny_student(teacher, family), task, config)
    assert saved == [3, 7]
    assert (
        str(stopped.value) == "distill: stopped by SIGTERM after step 7, which is saved: run the same command to go on"
    )
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    resumed = train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path / "b"), config)
    assert same(weights(resumed), weights(undisturbed))
    assert resumed.curves["accuracy/t0"] == undisturbed.curves["accuracy/t0"]


def test_checkpoints_and_measurements_come_by_the_clock_too(family, teacher, pairs, tmp_path, monkeypatch):
    """A clock that goes on by a minute a look: a checkpoint after every second minute, a measurement after five."""
    clock, saved = itertools.count(step=60.0), []
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(runs, "write", lambda *args: saved.append(args[2]["step"]))
    config = settings(evaluate_every=1000, checkpoint_every=1000, checkpoint_minutes=8, evaluate_minutes=15)
    curves = train(tiny_student(teacher, family), make_task(teacher, pairs, tmp_path), config).curves
    assert len(saved) > 2
    assert saved[-1] == 12
    measured = [step for step, _ in curves["accuracy/t0"]]
    assert len(measured) > 2
    assert (measured[0], measured[-1]) == (0, 12)
    assert len(measured) < len(saved) + 1


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_sharded_models_are_refused(monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(DDError) as error:
        training.this_process()
    assert str(error.value) == (
        f"accelerate is set to {name}, which is not supported: plain data parallelism (DDP) is enough below "
        "1.5 billion parameters; run `accelerate config` again without it"
    )


def test_tensorboard_gets_the_curves(family, teacher, pairs, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    task = make_task(teacher, pairs, tmp_path / "work", watched=tmp_path / "trackers" / "mine")
    curves = train(tiny_student(teacher, family), task, settings(trackers=("dvclive", "tensorboard"))).curves
    events = EventAccumulator(str(tmp_path / "trackers" / "mine" / "dd")).Reload()
    assert set(events.Tags()["scalars"]) == set(curves)
    for name, points in curves.items():
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in points]
    alone = make_task(teacher, pairs, tmp_path / "b", watched=tmp_path / "no")
    train(tiny_student(teacher, family), alone, settings(steps=2))
    assert not (tmp_path / "no").exists()


def test_wandb_gets_the_curves_offline(teacher, family, pairs, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    seen: dict[str, list[tuple[int, float]]] = {}

    def log(self, values, step, **_):
        for name, value in values.items():
            seen.setdefault(name, []).append((step, value))

    monkeypatch.setattr(WandBTracker, "log", log)
    task = make_task(teacher, pairs, tmp_path / "work", watched=tmp_path / "trackers" / "mine")
    curves = train(tiny_student(teacher, family), task, settings(steps=2, trackers=("wandb",))).curves
    assert seen == curves
    assert list((tmp_path / "trackers" / "mine" / "wandb").glob("offline-run-*"))
