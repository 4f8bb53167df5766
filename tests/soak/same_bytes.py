"""Hashes of what the stages make, to show that moved code computes the same: `python -m tests.soak.same_bytes`.

Cut-down copies of the shipped experiments run through all stages in a temporary project. Shards, the trained student
and rows.json (without times and revisions) are hashed: the same lines before and after a change mean the same bytes.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("teacher", "trajectories", "distill", "evaluate")
# What differs from run to run or from commit to commit.
VOLATILE = ("seconds", "speedup", "revision", "timing", "latency", "command", "cpu", "selected")


def make_project(root: Path, name: str) -> None:
    """A project with one cut-down experiment; its networks are those that ship."""
    experiment = yaml.safe_load((ROOT / "params.yaml").read_text())["experiments"][name]
    experiment["trajectories"] |= {"pairs": 64, "held_out": 16, "batch": 32, "shard_size": 32}
    experiment["distill"] |= {"steps": 4, "batch": 8, "warmup": 1, "baseline": {"steps": 2}}
    experiment["distill"]["second"] |= {"steps": 6, "warmup": 2, "frechet_memory": 16}
    experiment["distill"] |= {"evaluate_every": 5, "log_every": 2, "precision": "fp32"}
    experiment["evaluate"] |= {"images": 200, "batch": 100, "precision": "fp32"}
    (root / "params.yaml").write_text(yaml.safe_dump({"experiments": {name: experiment}}, sort_keys=False))
    for shared in ("zoo", "captions"):
        (root / shared).symlink_to(ROOT / shared)


def digest(path: Path) -> str:
    """SHA-256 of a file, of rows without what is volatile, or of curves and records without their times."""
    if path.name != "rows.json":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    rows = [
        {key: value for key, value in sorted(row.items()) if not key.startswith(VOLATILE)}
        for row in json.loads(path.read_text())["rows"]
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def run(name: str, root: Path) -> list[str]:
    """All stages of one experiment; lines of `hash  file`."""
    make_project(root, name)
    environment = {**os.environ, "DD_ROOT": str(root), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for stage in STAGES:
        subprocess.run([sys.executable, "-m", f"stages.{stage}", name], cwd=ROOT, env=environment, check=True)
    files = sorted((root / "data" / name / "trajectories").glob("*.parquet"))
    files += [root / "models" / name / "student.safetensors", root / "models" / name / "baseline/student.safetensors"]
    files += [root / "results" / name / "rows.json"]
    return [f"{digest(file)[:16]}  {file.relative_to(root)}" for file in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="*", default=["llamagen-fashion", "var-fashion", "t2i-fashion"])
    for name in parser.parse_args().experiments:
        with tempfile.TemporaryDirectory() as folder:
            print("\n".join(run(name, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
