"""The supervisor as a program: statuses, and descendants that are found. What it ends: test_process.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.processes import supervisor


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(3)", 3), ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + 9)],
)
def test_the_status_is_that_of_the_command(code: str, status: int) -> None:
    command = [sys.executable, "-S", str(Path(supervisor.__file__)), sys.executable, "-S", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        assert child.wait(60) == status


def test_descendants_are_all_below(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'print(1, flush=True); input()'])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-S", "-c", code], **pipes) as child:  # type: ignore[call-overload]
        child.stdout.readline()  # the grandchild runs
        found = supervisor.descendants(os.getpid())
        assert child.pid in found
        assert len(supervisor.descendants(child.pid)) == 1
        assert set(supervisor.descendants(child.pid)) < set(found)
        child.communicate(b"\n")
    assert child.pid not in supervisor.descendants(os.getpid())
