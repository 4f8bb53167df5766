"""A small DVC project of its own for bench.py: nine stages that cost nothing, or that will not be stopped."""

import os
import subprocess
import sys
from pathlib import Path

WORK = '''"""One stage: writes its output. The file `slow` says how it is to be stopped: `heeds` or `deaf`."""
import signal, subprocess, sys, time
from pathlib import Path

manner = Path("slow").read_text() if Path("slow").exists() else ""
if manner == "deaf":  # ignores SIGTERM, and has a child in a session of its own
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
if manner:
    Path("working").touch()
    time.sleep(600)
Path(sys.argv[1]).write_text("done")
'''
STEPS, CHAINS = ("teacher", "trajectories", "distill", "evaluate"), ("one", "two")


def make(root: Path) -> None:
    """Git and DVC repository at `root`, two chains of four stages and a report that needs both, all done."""
    root.mkdir(parents=True)
    (root / "work.py").write_text(WORK)
    (root / "params.yaml").write_text("experiments: {one: {}, two: {}}\n")
    (root / "dvc.yaml").write_text(_stages())
    (root / ".gitignore").write_text("/.prefect/\n/slow\n/working\n")
    (root / "report").mkdir()
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    dvc = [sys.executable, "-m", "dvc"]
    for words in (["git", "init", "-q"], [*dvc, "init", "-q"], [*dvc, "repro", "-q"], [*git, "add", "-A"]):
        _run(root, words)
    _run(root, [*git, "commit", "-qm", "bench"])


def living(root: Path) -> list[int]:
    """The processes of stages (dvc, its supervisor, and what they started) that work in `root`, from /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words != [b""] and (entry / "cwd").resolve() == root and _of_a_stage(words):
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def _of_a_stage(words: list[bytes]) -> bool:
    text = b" ".join(words)
    return b"work.py" in text or b"-m dvc" in text or b"time.sleep(600)" in text


def _stages() -> str:
    text = "stages:\n"
    for chain in CHAINS:
        before = "work.py"
        for step in STEPS:
            name = f"{step}-{chain}"
            text += _stage(
                name, f"python work.py {name}", ["work.py", before] if before != "work.py" else ["work.py"], name
            )
            before = name
    return text + _stage(
        "report", "python work.py report/all", [f"{STEPS[-1]}-{chain}" for chain in CHAINS], "report/all"
    )


def _stage(name: str, command: str, needs: list[str], out: str) -> str:
    deps = "".join(f"      - {need}\n" for need in needs)
    return f"  {name}:\n    cmd: {command}\n    deps:\n{deps}    outs:\n      - {out}\n"


def _run(root: Path, words: list[str]) -> None:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    subprocess.run(words, cwd=root, env={**env, "DVC_NO_ANALYTICS": "1"}, check=True, stdout=subprocess.DEVNULL)
