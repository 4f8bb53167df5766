"""Making shards: a teacher in memory, and the one function that any worker on any machine calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from dd.checkpoints.teachers import load_teacher_dir
from dd.errors import DDError
from dd.flow.map import Codes
from dd.models.base import Condition, Teacher
from dd.models.compiled import compile_blocks
from dd.models.precision import products
from dd.system.device import DeviceName, choose_device
from dd.system.machine import one_thread
from dd.text.conditions import Captions
from dd.trajectories.graphs import GraphedLoop
from dd.trajectories.plan import Shard, ShardPlan, finished, make_rows, write_shard
from dd.trajectories.trajectory import Trajectory


@dataclass(frozen=True)
class Job:
    """What a worker needs to make any shard of a plan; it sees the same folders as all others.

    device: "auto" or "cuda" is decided where the shard is made (`worker_device`), whatever the head node has.
    """

    plan: ShardPlan
    folder: Path
    teacher_dir: Path
    device: str = "cpu"  # or what the experiment states: then every worker looks for itself


def caption_lookup(job: Job) -> Callable[[Tensor], Captions] | None:
    """Caption numbers to encoded captions on the job's device; None for a teacher of classes.

    The states lie beside the work folders, so that every stage and worker of the project shares them.
    """
    if not job.plan.captions_sha256:
        return None
    from dd.text.captions import open_captions

    cache, most = job.folder.parent.parent / "captions", job.plan.conditions
    device = worker_device(job)
    states = open_captions(job.teacher_dir, "train", cache, most, device)
    return lambda numbers: states(numbers).to(device)


def worker_device(job: Job) -> str:
    """This worker's own device: the CPU, or the card whose number is the Dask worker's, in turn over those it sees.

    Raises DDError where the experiment states CUDA and this machine has none that works.
    """
    if job.device not in ("auto", "cuda"):
        return job.device
    device = choose_device(cast(DeviceName, job.device), job.teacher_dir.parent.name)
    if device == "cpu":
        return device
    import torch

    return f"cuda:{_dask_number() % torch.cuda.device_count()}"


def _dask_number() -> int:
    """The number by which a local cluster calls this worker; 0 elsewhere (other clusters show each worker its card)."""
    try:
        from distributed import get_worker

        return int(get_worker().name)
    except (ImportError, ValueError, TypeError):
        return 0


LOOPS = ("graphs", "compile")


def loop_of(teacher: Teacher, codes: Codes, plan: ShardPlan) -> Callable[[Condition, Tensor], Trajectory] | None:
    """How the loop is run here, by $DD_LOOP: "graphs" (CUDA graphs), "compile" (torch.compile), or both by a comma.

    None: operation by operation. The environment is no part of a set's identity: compiled blocks round otherwise, which
    turns a token in thousands, as another kind of card does.
    """
    wanted = [word.strip() for word in os.environ.get("DD_LOOP", "").split(",") if word.strip()]
    if other := [word for word in wanted if word not in LOOPS]:
        raise DDError(f"DD_LOOP: expected {' or '.join(LOOPS)} or both by a comma, got {other[0]!r}")
    if "compile" in wanted:
        compile_blocks(teacher)
    if "graphs" not in wanted:
        return None
    if teacher.codebook.device.type != "cuda":
        raise DDError("DD_LOOP: graphs are CUDA's, got a teacher on the CPU; leave graphs out")
    return GraphedLoop(teacher, plan.filters, codes, plan.solver)


class Maker:
    """A teacher that makes shards, several at once in several threads if need be."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.teacher: Teacher = load_teacher_dir(job.teacher_dir, worker_device(job))
        self.codes = Codes.prepare(self.teacher.codebook)
        self.lookup = caption_lookup(job)
        self.loop = loop_of(self.teacher, self.codes, job.plan)

    def make(self, shard: Shard) -> None:
        """Write one shard."""
        plan = self.job.plan
        with products(plan.dtype == "tf32", self.teacher.codebook.device.type):
            table, evaluations = make_rows(plan, shard, self.teacher, self.codes, self.lookup, self.loop)
        write_shard(self.job.folder, shard, table, evaluations)


_makers: dict[Job, Maker] = {}


def make_shard(job: Job, number: int) -> int:
    """Make shard `number` of a plan unless it is finished, keeping the teacher for the next call. Returns `number`."""
    shard = job.plan.shards[number]
    if finished(job.folder, shard) is None:
        if job not in _makers:
            one_thread(worker_device(job))
            _makers.clear()
            _makers[job] = Maker(job)
        _makers[job].make(shard)
    return number
