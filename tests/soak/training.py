"""Kill the stage distill at random moments, again and again: the student must be the same, bit for bit.

    python -m tests.soak.training [--kills 20] [--family var] [--seed 0]

Not for CI: a kill costs a start of Python, and the moments are random on purpose.
"""

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.tiny import write_project

log = logging.getLogger("soak")
FILES = ("student.safetensors", "baseline/student.safetensors", "curves/plots/metrics/accuracy/t2.tsv")
RUN = {
    "steps": 400,
    "muon_lr": 0.01,
    "weight_decay": 0.05,
    "global_batch": 8,
    "evaluate_every": 50,
    "checkpoint_every": 7,
    "baseline": {"steps": 60, "timesteps": (0, 2)},
}


def make_project(root: Path, family: str) -> Path:
    os.environ["DD_ROOT"] = str(root)
    write_project(root, family, **RUN)
    return root


def start(root: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "DD_ROOT": str(root), "OMP_NUM_THREADS": "1", "CI": "1"}
    return subprocess.Popen([sys.executable, "-m", "stages.distill", "toy"], env=environment, stderr=subprocess.DEVNULL)


def results(root: Path) -> dict[str, bytes]:
    return {file: (root / "models" / "toy" / file).read_bytes() for file in FILES}


def forget(root: Path) -> None:
    """The next run of a finished project starts from nothing."""
    (root / "models" / "toy").rename(root / f"finished-{time.monotonic_ns()}")


def soak(folder: Path, family: str, kills: int, seed: int) -> None:
    """Raise AssertionError if a run that was killed ends with other bytes than an undisturbed one."""
    quiet, loud = (make_project(folder / name, family) for name in ("undisturbed", "killed"))
    began = time.monotonic()
    assert start(quiet).wait() == 0
    length, expected = time.monotonic() - began, results(quiet)
    log.info("undisturbed: %.1f s", length)
    moments, done, finished = random.Random(seed), 0, 0
    while done < kills:
        process = start(loud)
        try:
            process.wait(timeout=moments.uniform(0, 0.8 * length))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            saved = sorted(path.relative_to(loud / "work").as_posix() for path in loud.glob("work/**/run.json"))
            log.info(
                "kill %d of %d; checkpoints: %s", done, kills, ", ".join(p.split("/", 1)[1] for p in saved) or "none"
            )
        else:
            finished += check(process, loud, expected)
            forget(loud)
    finished += check(start(loud), loud, expected)
    log.info("%d kills, %d finished runs: all equal to the undisturbed one, bit for bit", done, finished)


def check(process: subprocess.Popen[bytes], root: Path, expected: dict[str, bytes]) -> int:
    """1 if the process has ended well and left the expected files."""
    assert process.wait() == 0, f"the stage ended with {process.returncode}"
    found = results(root)
    for file, content in expected.items():
        assert found[file] == content, f"{file} differs from that of the undisturbed run"
    return 1


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--family", choices=("llamagen", "var"), default="llamagen")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak(Path(folder), arguments.family, arguments.kills, arguments.seed)


if __name__ == "__main__":
    main()
