"""The shards of one trajectories stage as Prefect tasks on Dask workers.

The stage asks for it: DVC has decided that it must run, and it knows which shards are missing. It finds `make` below by
its name in $DD_SHARD_ENGINE, checks every shard that comes back, and publishes them all with one rename. So DVC remains
the only owner of what is up to date, and a run that is killed anywhere costs the shards that were being made.

The workers are processes of this machine ($DD_DASK_WORKERS), or those of a cluster that sees the same folders
($DD_DASK_SCHEDULER, its address). A shard whose worker dies is made by another.
"""

import os
from collections.abc import Iterator
from typing import Any

import dask
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect_dask import DaskTaskRunner

ENGINE = f"{__name__}:make"
DEATHS = 10  # of workers that had one shard, before the shard is to blame; spot machines die often


@task(name="shard", task_run_name="shard {number}", cache_policy=NO_CACHE, persist_result=False)
def shard(job: Any, number: int) -> int:
    """One shard, in a worker that keeps its teacher for the next one."""
    from dd.trajectories.worker import make_shard  # torch: only where shards are made

    return make_shard(job, number)


@flow(name="shards", validate_parameters=False)
def shards(experiment: str, job: Any, missing: list[int]) -> Iterator[int]:
    """Yields the number of each shard when it is there."""
    futures = [shard.submit(job, number) for number in missing]
    for future in as_completed(futures):
        yield future.result()


def make(job: Any, missing: list[int]) -> Iterator[int]:
    """The missing shards of a dd.trajectories.worker.Job, as they come."""
    experiment = job.teacher_dir.parent.name
    named = shards.with_options(task_runner=runner(), flow_run_name=f"shards of {experiment}")
    with dask.config.set({"distributed.scheduler.allowed-failures": DEATHS}):
        yield from named(experiment, job, missing)


def runner() -> Any:
    """Dask as the environment describes it."""
    if address := os.environ.get("DD_DASK_SCHEDULER"):
        return DaskTaskRunner(address=address)
    workers = int(os.environ["DD_DASK_WORKERS"])
    return DaskTaskRunner(cluster_kwargs={"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None})
