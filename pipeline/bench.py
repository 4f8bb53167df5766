"""What a run costs beyond DVC itself, where nothing has changed: python -m pipeline.bench [--api URL] [--repeat N].

Runs in the project of the working directory, which must be up to date. Wall time is the least of N repeats, processor
time (of the command and all it started) the least as well; the latter hardly changes on a busy machine.
"""

import os
import resource
import subprocess
import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline import graph, server


def measure(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """(wall, processor) seconds of one command, which must end well."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def bench(
    api: Annotated[str | None, typer.Option(help="A Prefect server; default: the project's own, if it runs.")] = None,
    repeat: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """`dvc repro`, `dd-cli run` without a server, and with one."""
    root = graph.project()
    stages = len(graph.choose(graph.read(root), []))
    plain = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"} | {"DVC_NO_ANALYTICS": "1"}
    ways = {
        "dvc repro": ([sys.executable, "-m", "dvc", "repro"], plain),
        "dd-cli run --no-server": ([sys.executable, "-m", "pipeline.run", "--no-server"], plain),
    }
    if found := api or server.find(root):
        ways["dd-cli run, with a server"] = ([sys.executable, "-m", "pipeline.run"], plain | {"PREFECT_API_URL": found})
    table = Table("", "wall s", "processor s", "more than dvc, s per stage", title=f"{stages} stages, all unchanged")
    base = 0.0
    for name, (command, env) in ways.items():
        wall, used = map(min, zip(*(measure(command, env) for _ in range(repeat)), strict=True))
        base = base or wall
        table.add_row(name, f"{wall:.2f}", f"{used:.2f}", f"{(wall - base) / stages:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(bench)
