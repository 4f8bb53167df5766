"""Stages that behave like the real ones (progress, resumable work, one final rename) and misbehave when told to.

`control.json`, which is no dependency, maps a stage to its manners: {"distill@toy-a": {"pause": 0.5, "exit": 1,
"deaf": true, "away": true}}: seconds per unit of work, exit status, deafness to SIGTERM, a child in its own session.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import yaml

os.chdir(os.environ.get("DD_ROOT") or ".")  # as dd.config.project_root
stage, experiment = sys.argv[1:]
name = f"{stage}@{experiment}" if experiment != "all" else stage
control = json.loads(Path("control.json").read_text()).get(name, {}) if Path("control.json").exists() else {}
params = yaml.safe_load(Path("params.yaml").read_text())["experiments"].get(experiment, {})
work = Path("work", name)
work.mkdir(parents=True, exist_ok=True)


def png(color: tuple[int, int, int], size: int = 96) -> bytes:
    """One coloured square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(color) * size for _ in range(size))
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def progress(step: int, total: int, unit: str) -> None:
    if target := os.environ.get("DD_PROGRESS_FILE"):
        part = Path(target + ".part")
        part.write_text(json.dumps({"step": step, "total": total, "unit": unit, "rate": 1.0}))
        part.replace(target)


def units(total: int, unit: str, done: Path) -> None:
    """Do the units that are not in `done` yet; Path("log") gets one line for each that is done now."""
    done.mkdir(exist_ok=True)
    for index in range(total):
        progress(index, total, unit)
        if not (done / str(index)).exists():
            time.sleep(control.get("pause", 0))
            Path("beat").write_text(str(time.time()))
            (done / str(index)).write_text("done")
            with Path("log").open("a") as log:
                log.write(f"{name} {index}\n")
    progress(total, total, unit)


def publish(files: dict[str, bytes], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        part = folder / f"{file}.part"
        part.write_bytes(data)
        part.replace(folder / file)


with Path("pids").open("a") as pids:
    pids.write(f"{os.getpid()}\n")
if control.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if control.get("away"):
    away = "import time\nwhile True:\n  open('beat', 'w').write(str(time.time())); time.sleep(0.05)"
    child = subprocess.Popen([sys.executable, "-c", away], start_new_session=True)
    with Path("pids").open("a") as pids:
        pids.write(f"{child.pid}\n")
if workers := os.environ.get("DD_DASK_WORKERS"):
    print(f"with {workers} Dask workers")
print(f"{name} works", flush=True)
if stage == "trajectories":
    units(params["trajectories"]["pairs"], "shards", work / f"seed-{params['trajectories']['seed']}")
elif stage == "distill":
    units(params["distill"]["steps"], "steps", work / f"lr-{params['distill']['lr']}")
else:
    time.sleep(control.get("pause", 0))
if status := control.get("exit"):
    control_once = Path("failures")
    failures = int(control_once.read_text()) if control_once.exists() else 0
    control_once.write_text(str(failures + 1))
    if failures < control.get("times", 1_000_000):
        print("expected a fine day, found rain: wait")
        sys.exit(status)
if stage == "trajectories":
    publish({"shard": str(params["trajectories"]["seed"]).encode()}, Path("data", experiment, "trajectories"))
elif stage == "distill":
    lr = params["distill"]["lr"]
    publish({"student": f"{lr}".encode(), "curve.png": png((200, 80, 40))}, Path("models", experiment))
elif stage == "evaluate":
    value = float(Path("models", experiment, "student").read_text()) * 1000
    row = {"experiment": experiment, "sampler": "dd", "metric": "FD-toy", "value": value, "kid": None, "images": 8}
    files = {"rows.json": json.dumps({"rows": [row]}).encode(), "metrics.json": json.dumps({"dd": value}).encode()}
    publish({**files, "samples.png": png((40, 120, 200))}, Path("results", experiment))
elif stage == "report":
    publish({"report.html": b"<h1>Report</h1>", "quality.png": png((60, 160, 60))}, Path("report"))
