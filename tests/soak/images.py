"""Ctrl-C in every stage of `dd-cli images add --run`, and the same command again: the networks must be the same.

    python -m tests.soak.images [--wait 1.5] [--seed 0]

Not for CI: a minute or two per stage. Networks and lengths are cut down; the pictures are made here.
"""

import argparse
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from dd.system.files import sha256_file
from tests.helpers.paths import ROOT

log = logging.getLogger("soak")
NAME = "pets"
# In the order in which they run.
STAGES = ("folder", "dataset", "extractor", "tokenizer", "teacher", "reference")
STAGES += ("code", "trajectories", "distill", "evaluate")
SHORT = {"extractors": 60, "tokenizers": 60, "teachers": 60}
NETWORKS = ("zoo/pets*/*.safetensors", "models/pets/**/*.safetensors")


def pictures(folder: Path) -> Path:
    """120 small pictures of two classes."""
    draw = np.random.default_rng(0)
    for number in range(120):
        name = ("dark", "light")[number % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(130 * (number % 2), 130 * (number % 2) + 120, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def command(root: Path, images: Path, *options: str) -> dict[str, Any]:
    """What starts `dd-cli images add` in a project."""
    environment = {**os.environ, "DD_ROOT": str(root), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "CI": "1"}
    return {
        "args": [sys.executable, "-m", "zoo.own", "add", NAME, str(images), *options],
        "cwd": root,
        "env": environment,
    }


def make_projects(folder: Path, images: Path) -> tuple[Path, Path]:
    """Two clones with the same plan, cut down."""
    whole, parts = folder / "undisturbed", folder / "stopped"
    for root in (whole, parts):
        subprocess.run(["git", "clone", "-q", str(ROOT), str(root)], check=True)
    subprocess.run(**command(whole, images, "--size", "16", "--minutes", "1"), check=True)
    for name in ("zoo/params.yaml", "params.yaml"):
        params = yaml.safe_load((whole / name).read_text())
        for group, steps in SHORT.items():
            for entry in params.get(group, {}).values():
                entry["train"]["steps"] = steps
        if mine := params.get("experiments", {}).get(NAME):
            mine["trajectories"] |= {"pairs": 512, "held_out": 64, "batch": 64}
            mine["distill"] |= {"steps": 20, "batch": 8}
            mine["distill"]["second"] |= {"steps": 8, "warmup": 2}
            mine["distill"]["baseline"]["steps"] = 8
            mine["evaluate"]["images"] = 64
        for root in (whole, parts):
            (root / name).write_text(yaml.safe_dump(params, sort_keys=False))
    return whole, parts


def survivors(root: Path) -> list[str]:
    """Commands of the processes that still work in a project."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == root and "State:\tZ" not in (entry / "status").read_text():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def stop_in(root: Path, images: Path, stage: str, wait: float) -> str:
    """Run until a stage has begun, wait, Ctrl-C; what became of it, in words. Raises AssertionError."""
    child = subprocess.Popen(
        **command(root, images, "--run"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert child.stdout is not None
    begun = re.compile(rf"Running stage '(zoo/dvc\.yaml:)?{stage}(@|')")
    lines, stopped = [], 0.0
    for line in child.stdout:
        lines.append(line)
        if not stopped and begun.search(line):
            threading.Timer(wait, child.send_signal, [signal.SIGINT]).start()
            stopped = time.monotonic() + wait
    status, ended = child.wait(), time.monotonic()
    assert not survivors(root), survivors(root)
    assert stopped, f"{stage} did not run; status {status}: " + "".join(lines[-20:])
    assert status == 130, "".join(lines[-20:])
    assert lines[-1].startswith("stopped; the same command goes on"), lines[-1]
    assert not [line for line in lines if line.startswith("Traceback")], "".join(lines[-40:])
    return f"stopped {wait:.1f} s after its start, ended {max(0.0, ended - stopped):.1f} s later"


def to_the_end(root: Path, images: Path) -> None:
    """Run undisturbed. Raises AssertionError."""
    done = subprocess.run(
        **command(root, images, "--run"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, "\n".join(done.stdout.splitlines()[-20:])


def hashes(root: Path) -> dict[str, str]:
    """Of every network that was trained."""
    found = sorted(path for pattern in NETWORKS for path in root.glob(pattern))
    return {path.relative_to(root).as_posix(): sha256_file(path)[:16] for path in found}


def soak(folder: Path, wait: float, seed: int) -> None:
    """Raise AssertionError if something outlives Ctrl-C, or the networks differ in the end."""
    images = pictures(folder / "pictures")
    whole, parts = make_projects(folder, images)
    began = time.monotonic()
    to_the_end(whole, images)
    log.info("undisturbed: %.0f s, %d networks", time.monotonic() - began, len(hashes(whole)))
    draw = random.Random(seed)
    for stage in STAGES:
        log.info("%s: %s", stage, stop_in(parts, images, stage, draw.uniform(0.2, 2 * wait)))
    to_the_end(parts, images)
    assert hashes(parts) == hashes(whole), (hashes(parts), hashes(whole))
    log.info("the same %d networks", len(hashes(parts)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wait", type=float, default=1.5, help="seconds after the start of a stage, on average")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would ours
    with tempfile.TemporaryDirectory(prefix="dd-soak-") as folder:
        soak(Path(folder).resolve(), arguments.wait, arguments.seed)


if __name__ == "__main__":
    main()
