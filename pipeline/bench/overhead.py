"""What a run costs beyond DVC itself, and how soon nothing is left of a stopped one.

    python -m pipeline.bench.overhead [--json]

Measured in a small project of its own (project.py) with a server of its own; `--here` measures the cost in the
project of the working directory, which must be up to date, and stops nothing there.
"""

import contextlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline import graph
from pipeline.bench import project as bench_project
from pipeline.processes import process
from pipeline.servers import mark_crashed, server

LIMIT = 600.0  # seconds that anything here may take
Row = dict[str, Any]


def bench(
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each kind.")] = 3,
    here: Annotated[bool, typer.Option("--here", help="The cost in the project of the working directory.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and write results/bench/pipeline.json.")] = False,
) -> None:
    """`dvc repro` beside `dd-cli run` where nothing has changed; then from a stop to the end of the last process."""
    found: dict[str, Any] = {"command": command(), "date": datetime.now(UTC).isoformat("T", "seconds")}
    found["machine"] = machine()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell lets its background jobs ignore it, heirs as well
    with tempfile.TemporaryDirectory(prefix="dd-bench-") as name:
        root = Path(name).resolve() / "project"
        bench_project.make(root)
        with ui(root) as api:
            found["unchanged"] = unchanged(graph.project() if here else root, api, repeat)
            found["stopped"] = stopped(root, api, repeat)
    if as_json:
        path = graph.project() / "results" / "bench" / "pipeline.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        typer.echo(json.dumps(found, indent=1))
        return
    for title in ("unchanged", "stopped"):
        Console().print(show(title, found[title]))


def unchanged(root: Path, api: str, repeat: int) -> list[Row]:
    """Wall and processor seconds (of the command and all it started), the least of `repeat` runs."""
    stages = len(graph.choose(graph.read(root), []))
    run = [sys.executable, "-m", "pipeline.terminal.run"]
    ways: dict[str, tuple[list[str], dict[str, str]]] = {
        "dvc repro": ([sys.executable, "-m", "dvc", "repro"], {}),
        "dd-cli run --no-server": ([*run, "--no-server"], {}),
        "dd-cli run, with a server": (run, {"PREFECT_API_URL": api}),
    }
    rows: list[Row] = []
    for name, (words, more) in ways.items():
        wall, used = map(min, zip(*(measure(words, root, more) for _ in range(repeat)), strict=True))
        beyond = (wall - rows[0]["wall_s"]) / stages if rows else None
        rows.append(
            {"way": name, "stages": stages, "wall_s": wall, "processor_s": used, "beyond_dvc_s_per_stage": beyond}
        )
    return rows


def stopped(root: Path, api: str, repeat: int) -> list[Row]:
    """Seconds from a stop to the end of the last process of the stage, the longest of `repeat`.

    A stage that heeds SIGTERM, and one that ignores it and has a child in a session of its own.
    """
    ways: dict[str, Callable[[], Callable[[], Any]]] = {
        "Ctrl-C": lambda: _by_signal(root, signal.SIGINT),
        "SIGKILL of the flow": lambda: _by_signal(root, signal.SIGKILL),
        "Cancel in the UI": lambda: _in_the_ui(api),
    }
    rows = []
    for manner in ("heeds", "deaf"):
        (root / "slow").write_text(manner)
        rows += [
            {"way": way, "stage": manner, "longest_s": max(_stop(root, start) for _ in range(repeat))}
            for way, start in ways.items()
        ]
    return rows


def measure(words: list[str], root: Path, more: dict[str, str]) -> tuple[float, float]:
    """(wall, processor) seconds of one command, which must end well."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, cwd=root, env=_environment() | more, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextlib.contextmanager
def ui(root: Path) -> Iterator[str]:
    """`make ui` of a project, ready to start flows; yields its API."""
    words = [sys.executable, "-m", "pipeline.servers.ui", "--with-parent", "--port", str(server.free_port(0))]
    child = subprocess.Popen(words, cwd=root, env=_environment(), stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield _until(lambda: (own := server.recorded(root)) and _deployment(own.api) and own.api, "the server")
    finally:
        child.terminate()
        child.wait(60)


def _stop(root: Path, start: Callable[[], Callable[[], Any]]) -> float:
    """Start a run, stop it in mid-stage, and wait until nothing of the stage is left."""
    (root / "working").unlink(missing_ok=True)
    stop = start()
    _until((root / "working").exists, "a stage to work")
    time.sleep(0.5)
    begin = time.perf_counter()
    stop()
    _until(lambda: not bench_project.living(root), "all to end")
    return time.perf_counter() - begin


def _by_signal(root: Path, number: signal.Signals) -> Callable[[], Any]:
    words = [sys.executable, "-m", "pipeline.terminal.run", "--no-server", "--force", "teacher-one"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(words, cwd=root, env=_environment(), **quiet)
    return lambda: child.send_signal(number)


def _in_the_ui(api: str) -> Callable[[], Any]:
    parameters = {"targets": ["teacher-one"], "force": True}
    run = mark_crashed.post(api, f"deployments/{_deployment(api)}/create_flow_run", {"parameters": parameters})["id"]
    return lambda: mark_crashed.post(api, f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})


def _deployment(api: str) -> str | None:
    """The id of the flow `experiments` in the server, once it can be started."""
    with contextlib.suppress(OSError):
        wanted = {"flows": {"name": {"any_": ["experiments"]}}}
        return next(
            (str(d["id"]) for d in mark_crashed.post(api, "deployments/filter", wanted) if d["status"] == "READY"), None
        )
    return None


def _until(true: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + LIMIT
    while not (value := true()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {LIMIT:.0f} s: {what}")
        time.sleep(0.02)
    return value


def _environment() -> dict[str, str]:
    """The environment without what belongs to another project or server."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "DD_"))}
    return {**mine, "PATH": process.python_first(), "DVC_NO_ANALYTICS": "1"}


def show(title: str, rows: list[Row]) -> Table:
    """Rows as a table."""
    table = Table(*(key.replace("_", " ") for key in rows[0]), title=title)
    for row in rows:
        table.add_row(*("–" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    return table


def command() -> str:
    """The present command, without paths."""
    return " ".join(["python -m pipeline.bench.overhead", *sys.argv[1:]])


def machine() -> dict[str, Any]:
    """Processor, cores, load before the start, versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("dvc", "prefect")},
    }


if __name__ == "__main__":
    typer.run(bench)
