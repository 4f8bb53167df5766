"""A worker makes any shard of a plan, once."""

from dataclasses import replace

import pytest

from dd.checkpoints.teachers import load_teacher_dir, read_info
from dd.models.base import Filters
from dd.trajectories import worker
from dd.trajectories.plan import ShardPlan, finished
from dd.trajectories.worker import Job, make_shard, worker_device
from tests.helpers.small.shards import PLAN
from tests.helpers.toy_project import make_project


@pytest.fixture
def job(tmp_path, monkeypatch) -> Job:
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    make_project(tmp_path)
    folder = tmp_path / "data" / "toy" / "teacher"
    teacher, info = load_teacher_dir(folder), read_info(folder)
    plan: ShardPlan = replace(
        PLAN,
        pairs=8,
        held_out=0,
        shard_size=4,
        batch=4,
        length=teacher.groups.length,
        width=teacher.codebook.shape[1],
        conditions=3,
        teacher_sha256=info.sha256,
        filters=Filters(1.5),
    )
    (tmp_path / "shards").mkdir()
    return Job(plan, tmp_path / "shards", folder)


def test_a_finished_shard_is_not_made_again(job, monkeypatch):
    assert make_shard(job, 1) == 1
    assert finished(job.folder, job.plan.shards[1]) is not None
    assert finished(job.folder, job.plan.shards[0]) is None
    monkeypatch.setattr(worker.Maker, "make", lambda *_: pytest.fail("made it again"))
    assert make_shard(job, 1) == 1


def test_a_named_device_is_taken_as_it_is(job):
    assert worker_device(job) == "cpu"
    assert worker_device(replace(job, device="cuda:3")) == "cuda:3"
