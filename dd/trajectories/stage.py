"""Pairs of an experiment, shard by shard in work/<fingerprint>/, published as a whole when every shard is there.

A killed run goes on where it stopped, and every engine (threads, processes, Dask workers) makes the same bytes.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import fsspec
from filelock import FileLock, Timeout

from dd import config
from dd.checkpoints.teachers import TeacherInfo, read_info
from dd.errors import DDError, install
from dd.flow.grid import Solver
from dd.models.base import Filters
from dd.system.device import choose_device, device_name
from dd.system.files import publish
from dd.system.launch import by_hand
from dd.system.machine import one_thread
from dd.system.progress import Progress, keep_rates, progress
from dd.text.captions import plan_captions
from dd.trajectories.plan import MANIFEST, Manifest, ShardPlan, finish, finished
from dd.trajectories.reader import open_shards
from dd.trajectories.worker import Job, Maker, make_shard

log = logging.getLogger(__name__)


# ------------------------------------------------------------------------------------------------------------- the plan


def make_plan(experiment: config.Experiment, info: TeacherInfo, teacher_dir: Path | None = None) -> ShardPlan:
    """The plan of an experiment, without loading its teacher. teacher_dir: where its captions lie, if it has any."""
    from dd.models.registry import build_teacher

    settings = experiment.trajectories
    if settings is None:
        raise DDError("the experiment has no trajectories: its student is a released one (remove 'student' to distill)")
    empty = build_teacher(info.family, info.tokenizer_config, info.transformer_config, "meta")
    conditions, captions = len(info.classes), ""
    if teacher_dir is not None:
        conditions, captions = plan_captions(teacher_dir, "train", settings.pairs + settings.held_out)
    chosen = experiment.teacher
    return ShardPlan(
        pairs=settings.pairs,
        held_out=settings.held_out,
        shard_size=settings.shard_size,
        batch=settings.batch,
        seed=settings.seed,
        conditions=conditions,
        length=empty.groups.length,
        width=empty.codebook.shape[1],
        teacher_sha256=info.sha256,
        codebook_sha256=info.codebook_sha256,
        captions_sha256=captions,
        dtype="tf32" if settings.precision == "tf32" else "float32",
        filters=Filters.of(chosen.model_dump()),
        solver=Solver(**settings.solver.model_dump()),
    )


def complete(url: str, plan: ShardPlan) -> bool:
    """Whether a finished and undamaged set of this plan lies there."""
    try:
        return open_shards(url).plan == plan
    except DDError:
        return False


# ---------------------------------------------------------------------------------------------------------- the engines


def run_threads(job: Job, missing: list[int], threads: int) -> Iterator[int]:
    """Make shards in this process, one thread each; one teacher serves them all."""
    maker = Maker(job)
    shards = job.plan.shards
    if threads == 1:
        for number in missing:
            maker.make(shards[number])
            yield number
        return
    with ThreadPoolExecutor(threads, initializer=one_thread) as pool:
        futures = {pool.submit(maker.make, shards[number]): number for number in missing}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run_dask(job: Job, missing: list[int], workers: int, address: str | None) -> Iterator[int]:
    """Make shards on a Dask cluster; a shard whose worker dies is given to another."""
    try:
        from dask.distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise DDError(f"Dask is not installed: {install('dask')}, or leave the Dask options out") from None
    cluster = None
    if address is None:
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
    client = Client(address or cluster)
    try:
        # A worker may be killed often (spot machines): that says nothing about the shard it was at.
        futures = [client.submit(make_shard, job, number, pure=False, retries=10) for number in missing]
        for future in as_completed(futures):
            yield future.result()
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def run_named(engine: str, job: Job, missing: list[int]) -> Iterator[int]:
    """Make shards with `module:function` of whoever started this stage; it yields the number of each finished shard."""
    module, _, function = engine.partition(":")
    made: Iterator[int] = getattr(importlib.import_module(module), function)(job, missing)
    return made


@dataclass(frozen=True)
class Engine:
    """How this process makes shards: as rank of world processes (accelerate), with threads, or on Dask workers.

    `named`: or with a function of the program that started the stage.
    """

    rank: int = 0
    world: int = 1
    threads: int = 1
    dask_workers: int = 0
    dask: str | None = None
    named: str | None = None

    def run(self, job: Job, missing: list[int]) -> Iterator[int]:
        """Make this process's part of the missing shards."""
        if self.named and missing:
            return run_named(self.named, job, missing)
        if self.dask_workers or self.dask:
            return run_dask(job, missing, self.dask_workers, self.dask)
        return run_threads(job, missing, self.threads) if missing else iter(())


# ------------------------------------------------------------------------------------------------------------ the stage


def main(
    name: str, engine: Engine, device: str, out: str | None = None, wait: Callable[[], None] = lambda: None
) -> str:
    """Make what is missing and publish it. wait: a barrier of all processes. Returns what was done, in one line."""
    root = config.project_root()
    experiment = config.load_experiment(name)
    if experiment.trajectories is None:  # DVC wants the output of every stage, if empty
        (root / "data" / name / "trajectories").mkdir(parents=True, exist_ok=True)
        return f"{name}: its student is a released one, so no pairs are needed"
    teacher_dir = root / "data" / name / "teacher"
    plan = make_plan(experiment, read_info(teacher_dir), teacher_dir if experiment.condition == "text" else None)
    target = out or str(root / "data" / name / "trajectories")
    if complete(target, plan):
        return f"{name}: {len(plan.shards)} shards were there already"
    folder = root / "work" / plan.fingerprint / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(plan, folder, teacher_dir, device)
    lock = FileLock(folder.parent / "lock")
    if engine.rank == 0:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DDError(
                f"another process makes these trajectories (it holds {folder.parent / 'lock'}): wait until it ends"
            ) from None
        for leftover in folder.glob(".*.part"):
            leftover.unlink()
    wait()
    try:
        todo = [n for n, shard in enumerate(plan.shards) if finished(folder, shard) is None]
        wait()  # everyone has looked before anyone writes: the parts do not overlap
        mine = todo[engine.rank :: engine.world]
        keep_rates(root / "work" / "rates" / name, device=device_name(device), processes=engine.world)
        bar: Progress[int]
        with progress(len(mine), unit="shards", label=f"trajectories {name}") as bar:
            for _ in engine.run(job, mine):
                bar.update()
        wait()
        if engine.rank:
            return ""
        delivered = spare(folder, out)
        manifest = finish(delivered, plan)
        deliver(delivered, target, manifest)
        evaluations = sum(r.evaluations * r.rows for r in manifest.records) / sum(r.rows for r in manifest.records)
        size = sum(r.bytes for r in manifest.records)
    finally:
        if engine.rank == 0:
            lock.release()
    tidy(folder.parent, out)
    return (
        f"{name}: {plan.pairs + plan.held_out} pairs, {len(todo)} of {len(plan.shards)} shards new, "
        f"{size / 1e6:.1f} MB, {evaluations:.1f} evaluations per token"
    )


def spare(folder: Path, out: str | None) -> Path:
    """What is delivered: a copy where the stage was started by hand.

    `dvc repro` removes outputs that it did not make, and then takes the shards from the work folder.
    """
    if out is None and by_hand():
        return Path(shutil.copytree(folder, folder.with_name("copy"), dirs_exist_ok=True))
    return folder


def tidy(work: Path, out: str | None) -> None:
    """Remove the work folder, or leave it for `dvc repro` (`spare`)."""
    if out is not None or not by_hand():
        shutil.rmtree(work, ignore_errors=True)


def make_part(name: str, part: str, threads: int = 1) -> str:
    """Make every n-th shard from shard k on (part "k/n") and leave it in the work folder. Publishes nothing.

    For arrays of jobs that share the folder: the stage itself, run after them, finds the shards and publishes them.
    """
    number, _, count = part.partition("/")
    if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise DDError(f"--part: expected K/N with 0 <= K < N, such as 3/16, got {part}")
    root, experiment = config.project_root(), config.load_experiment(name)
    if experiment.trajectories is None:
        return f"{name}: its student is a released one, so no pairs are needed"
    teacher_dir = root / "data" / name / "teacher"
    plan = make_plan(experiment, read_info(teacher_dir), teacher_dir if experiment.condition == "text" else None)
    folder = root / "work" / plan.fingerprint / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    mine = range(int(number), len(plan.shards), int(count))
    todo = [n for n in mine if finished(folder, plan.shards[n]) is None]
    device = choose_device(experiment.device, name)
    keep_rates(root / "work" / "rates" / name, device=device_name(device), processes=1)
    bar: Progress[int]
    with progress(len(todo), unit="shards", label=f"trajectories {name}") as bar:
        for _ in Engine(threads=threads).run(Job(plan, folder, teacher_dir, device), todo):
            bar.update()
    return f"{name}: part {part}: {len(todo)} of {len(mine)} shards new"


def deliver(folder: Path, target: str, manifest: Manifest) -> None:
    """Publish a finished set: one rename here; elsewhere the manifest goes last, without it a set is unfinished."""
    fs, path = fsspec.core.url_to_fs(target)
    if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        publish(folder, Path(path))
        return
    for file in [*(record.file for record in manifest.records), MANIFEST]:
        fs.makedirs(path, exist_ok=True)
        fs.put_file(str(folder / file), f"{path}/{file}")


def start(arguments: argparse.Namespace) -> str:
    """Choose the engine and the device from the command line and the environment."""
    wait: Callable[[], None] = lambda: None  # noqa: E731
    rank, world = 0, 1
    workers = arguments.dask_workers or int(os.environ.get("DD_DASK_WORKERS", "0"))
    named = os.environ.get("DD_SHARD_ENGINE")
    if arguments.part:
        return make_part(arguments.name, arguments.part, max(arguments.threads, 1))
    wanted = config.load_experiment(arguments.name).device
    if workers or arguments.dask or named:  # elsewhere, perhaps with cards that this machine has not
        engine = Engine(dask_workers=workers, dask=arguments.dask, named=named)
        return main(arguments.name, engine, wanted, arguments.out)
    device = choose_device(wanted, arguments.name)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        state = PartialState(cpu=device == "cpu")
        rank, world, wait = state.process_index, state.num_processes, state.wait_for_everyone
        device = str(state.device)
    on_cpu = device == "cpu"
    if on_cpu:
        one_thread()
    threads = arguments.threads or ((os.cpu_count() or 1) if on_cpu and world == 1 else 1)
    return main(arguments.name, Engine(rank, world, threads), device, arguments.out, wait)
