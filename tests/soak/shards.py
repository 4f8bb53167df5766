"""Soak of the trajectories stage, not for CI: `python -m tests.soak.shards [--kills 30] [--flips 1000]`.

Kills the stage (a plain process, and a worker of a Dask cluster) at random moments and starts it again until it ends;
the finished folder must be byte-identical to an undisturbed run's. Then damages shards and manifest one byte at a time
(and cuts them short): every damage must be noticed before a row is read.
"""

import argparse
import hashlib
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dd.errors import DDError
from dd.trajectories.reader import open_shards
from tests.helpers.paths import ROOT
from tests.helpers.toy_project import make_project

log = logging.getLogger("soak")


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def start(root: Path, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"DD_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "stages.trajectories", "toy", *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=ROOT)


def undisturbed(root: Path) -> tuple[dict[str, str], float]:
    """Hashes of an undisturbed run, and its seconds."""
    began = time.monotonic()
    if start(root).wait():
        raise SystemExit("the undisturbed run failed")
    return hashes(root / "data" / "toy" / "trajectories"), time.monotonic() - began


def clear(root: Path) -> None:
    shutil.rmtree(root / "data" / "toy" / "trajectories", ignore_errors=True)
    shutil.rmtree(root / "work", ignore_errors=True)


def soak_process(root: Path, kills: int, seconds: float, expected: dict[str, str]) -> None:
    """SIGKILL at uniformly random moments, starting anew whenever a run gets through."""
    done = finishes = 0
    while done < kills:
        process = start(root)
        try:
            process.wait(random.uniform(0.1, 1.1) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            continue
        assert process.returncode == 0, "a run after a kill failed"
        assert hashes(root / "data" / "toy" / "trajectories") == expected
        clear(root)
        finishes += 1
    assert start(root).wait() == 0
    assert hashes(root / "data" / "toy" / "trajectories") == expected
    log.info("process: %d kills, %d finished folders, all as an undisturbed run's", done, finishes + 1)
    clear(root)


def start_worker(scheduler: str) -> subprocess.Popen:
    """A worker process of its own, as on another machine. (A nanny whose worker dies while it registers gives up.)"""
    command = [sys.executable, "-m", "dask", "worker", scheduler, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def soak_dask(root: Path, kills: int, expected: dict[str, str]) -> None:
    """SIGKILL of a random worker at random moments; another one takes its place."""
    from dask.distributed import LocalCluster

    logging.getLogger("distributed").setLevel(logging.ERROR)  # every killed worker is a warning
    done = finishes = 0
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        scheduler = cluster.scheduler_address
        workers = [start_worker(scheduler) for _ in range(2)]
        try:
            while done < kills:
                process = start(root, "--dask", scheduler)
                while process.poll() is None and done < kills:
                    time.sleep(random.uniform(1, 6))
                    if process.poll() is None:
                        victim = random.randrange(len(workers))
                        workers[victim].kill()
                        workers[victim].wait()
                        workers[victim] = start_worker(scheduler)
                        done += 1
                assert process.wait() == 0, "a run with killed workers failed"
                assert hashes(root / "data" / "toy" / "trajectories") == expected
                clear(root)
                finishes += 1
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    log.info("dask: %d killed workers, %d finished folders, all as an undisturbed run's", done, finishes)


def soak_damage(folder: Path, flips: int) -> None:
    """One flipped byte, or a cut, at a time."""
    files = sorted(folder.iterdir())
    for trial in range(flips):
        path = random.choice(files)
        data = path.read_bytes()
        at = random.randrange(len(data))
        flipped = data[:at] + bytes([data[at] ^ random.randrange(1, 256)]) + data[at + 1 :]
        path.write_bytes(data[:at] if trial % 4 == 0 else flipped)
        try:
            open_shards(folder)
        except DDError:
            path.write_bytes(data)
            continue
        raise SystemExit(f"trial {trial}: damage at byte {at} of {path.name} went unnoticed")
    open_shards(folder)
    log.info("damage: %d of %d noticed", flips, flips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="of the process, and again of Dask workers")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--dask-kills", type=int, default=None, help="of Dask workers, if not as many")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="dd-soak-") as name:
        root = Path(name)
        os.environ["DD_ROOT"] = name
        make_project(root, pairs=arguments.pairs, shard_size=100, batch=20)
        expected, seconds = undisturbed(root)
        log.info("undisturbed: %d files in %.1f s", len(expected), seconds)
        if arguments.flips:
            soak_damage(root / "data" / "toy" / "trajectories", arguments.flips)
        clear(root)
        if arguments.kills:
            soak_process(root, arguments.kills, seconds, expected)
        if dask_kills := arguments.kills if arguments.dask_kills is None else arguments.dask_kills:
            soak_dask(root, dask_kills, expected)


if __name__ == "__main__":
    main()
