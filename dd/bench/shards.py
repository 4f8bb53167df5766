"""`dd-cli bench trajectories` and `dd-cli bench shards`: what making and reading pairs costs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dd.models.base import Filters, Teacher


def trajectories(
    teacher: Annotated[list[str], typer.Option(help="Teachers of the zoo, e.g. llamagen-fashion or var-d16.")],
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Fetch nothing: speed needs sizes.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each, alternating.")] = 3,
    processes: Annotated[
        int,
        typer.Option(min=1, help="If above 1: compare this many processes, one core each, with one process instead."),
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of noise, sampling and random weights.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="As JSON, and into results/bench/trajectories.json.")] = False,
) -> None:
    """Time making pairs against plain multinomial sampling from the same teacher at the same batch, in one run."""
    from dd.bench.output import report
    from dd.bench.sampling import teacher_filters

    if processes > 1:
        rows = [scaling(name, random_weights, batch, repeats, processes, seed) for name in teacher]
        return report(f"trajectories-{processes}-processes", rows, json)
    rows = [pair_cost(name, random_weights, batch, repeats, teacher_filters(name), seed) for name in teacher]
    report("trajectories", rows, json)


def scaling(name: str, random: bool, batch: int, repeats: int, processes: int, seed: int) -> dict[str, Any]:
    """Pairs per second of several processes, each bound to a core of its own, against one on one core."""
    from dd.errors import DDError

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < processes:
        raise DDError(f"expected a core for each of {processes} processes, got {len(cores)}: give fewer --processes")

    def seconds(count: int) -> float:
        code = "import sys; from dd.bench.shards import make; make(*sys.argv[1:])"
        command = [sys.executable, "-c", code, name, str(int(random)), str(batch), str(repeats), str(seed)]
        running = [
            subprocess.Popen([*command, str(core)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for core in cores[:count]
        ]
        for process in running:  # loaded and warm
            assert process.stdout is not None
            process.stdout.readline()
        started = time.perf_counter()
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        if any(process.wait() for process in running):
            raise DDError(f"a process that makes pairs of {name} failed: its error is above")
        return time.perf_counter() - started

    one, several = batch * repeats / seconds(1), batch * repeats * processes / seconds(processes)
    return {
        "teacher": name,
        "weights": "random" if random else "shipped",
        "batch": batch,
        "processes": processes,
        "pairs_per_second_of_one": one,
        "pairs_per_second": several,
        "speedup": several / one,
    }


def make(name: str, random: str, batch: str, repeats: str, seed: str, core: str) -> None:
    """In a process of its own, on one core: says "ready", waits for a line, makes pairs."""
    os.sched_setaffinity(0, {int(core)})
    import torch

    from dd.bench.map_accuracy import classes_of
    from dd.bench.sampling import build, teacher_filters
    from dd.checkpoints.teachers import load_teacher
    from dd.trajectories.noise import noise
    from dd.trajectories.trajectory import balanced_classes, trajectory

    torch.set_num_threads(1)
    teacher: Teacher = build(name, True, "cpu")[0] if int(random) else load_teacher(name, "cpu")

    def run(first: int) -> None:
        indices = torch.arange(first, first + int(batch))
        e = noise(int(seed), indices, teacher.groups.length, teacher.codebook.shape[1])
        trajectory(teacher, balanced_classes(indices, classes_of(teacher)), e, teacher_filters(name))

    run(0)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for repeat in range(int(repeats)):
        run(repeat * int(batch))


def pair_cost(name: str, random: bool, batch: int, repeats: int, filters: Filters, seed: int) -> dict[str, Any]:
    """Seconds per 1000 images of both, and how much the map costs."""
    import torch

    from dd.bench.map_accuracy import classes_of
    from dd.bench.sampling import build
    from dd.checkpoints.teachers import load_teacher
    from dd.flow.map import Codes
    from dd.trajectories.noise import noise
    from dd.trajectories.trajectory import balanced_classes, sample, trajectory

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded: Teacher = build(name, True, device)[0] if random else load_teacher(name, device)
    codes = Codes.prepare(loaded.codebook)
    classes = balanced_classes(torch.arange(batch), classes_of(loaded)).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    plain, mapped, evaluations = [], [], 0.0

    def timed(work: Any) -> tuple[float, Any]:
        started = time.perf_counter()
        result = work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started, result

    def pairs() -> Any:
        e = noise(seed, torch.arange(batch), loaded.groups.length, loaded.codebook.shape[1])
        return trajectory(loaded, classes, e, filters, None, codes)

    for run in range(repeats + 1):
        drawn, _ = timed(lambda: sample(loaded, classes, filters, generator))
        made, result = timed(pairs)
        if run:  # the first is for warming up
            plain.append(drawn)
            mapped.append(made)
            evaluations = float(result.evaluations.double().mean())
    seconds = statistics.median(plain), statistics.median(mapped)
    return {
        "teacher": name,
        "weights": "random" if random else "shipped",
        "device": device,
        "batch": batch,
        "sampling_seconds_per_1000": seconds[0] / batch * 1000,
        "pairs_seconds_per_1000": seconds[1] / batch * 1000,
        "ratio": seconds[1] / seconds[0],
        "mean_evaluations": evaluations,
    }


def shards(
    pairs: Annotated[int, typer.Option(min=10, help="Pairs in the set that is written.")] = 16384,
    length: Annotated[int, typer.Option(help="Tokens per image.")] = 64,
    codebook: Annotated[str, typer.Option(help="V x C.")] = "256x8",
    batch: Annotated[int, typer.Option(help="Rows of a training batch.")] = 48,
    step_seconds: Annotated[
        float, typer.Option(help="Seconds of a training step that the reader must keep up with.")
    ] = 0.12,
    seconds: Annotated[float, typer.Option(help="Minimum reading time.")] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="As JSON, and into results/bench/shards.json.")] = False,
) -> None:
    """Measure bytes per pair, the reader's rows per second with noise, its memory for 1 and 8 times the shards."""
    from dd.bench.output import report

    size, width = (int(number) for number in codebook.split("x"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="dd-bench-") as folder:
        for factor in (1, 8):
            target = Path(folder) / str(factor)
            bytes_per_pair = write_random(target, pairs * factor, length, size, width)
            code = "import sys; from dd.bench.shards import read; read(*sys.argv[1:])"
            command = [sys.executable, "-c", code, str(target), str(batch), str(seconds)]
            out = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout.split()
            rows.append(
                {
                    "pairs": pairs * factor,
                    "tokens": length,
                    "codebook": codebook,
                    "bytes_per_pair": bytes_per_pair,
                    "bytes_allowed": 2.2 * length + 64,
                    "rows_per_second": float(out[0]),
                    "times_training": float(out[0]) * step_seconds / batch,
                    "memory_growth_mb": float(out[1]),
                }
            )
    report("shards", rows, json)


def write_random(folder: Path, pairs: int, length: int, size: int, width: int) -> float:
    """A set of random tokens; bytes per pair."""
    import torch

    from dd.flow.grid import Solver
    from dd.models.base import Filters
    from dd.trajectories.plan import ShardPlan, finish, to_table, write_shard

    plan = ShardPlan(pairs, 0, 1024, 256, 0, 10, length, width, "", "", Filters(), Solver())
    folder.mkdir()
    for shard in plan.shards:
        write_shard(folder, shard, to_table(plan, shard, torch.randint(0, size, (shard.rows, length))), 0.0)
    return sum(record.bytes for record in finish(folder, plan).records) / pairs


def read(folder: str, batch: str, seconds: str) -> None:
    """In a process of its own: rows per second, and MB that the process grew by while reading."""
    import resource  # not on Windows

    from dd.trajectories.reader import open_shards

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    opened = open_shards(folder)
    count, started = 0, time.perf_counter()
    for rows in opened.reader(int(batch)):
        opened.noise(rows)
        count += len(rows)
        if time.perf_counter() - started > float(seconds) and count >= opened.rows("train"):
            break
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    typer.echo(f"{count / (time.perf_counter() - started)} {growth / 1024}")
