"""Nothing that a supervised command started outlives the one who asked for it; real processes throughout."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.processes import process
from tests.pipeline.conftest import _lives, busy, until

PYTHON = sys.executable
FAMILY = """
import os, subprocess, sys, time
def child(how):
    code = "import os, signal, sys, time\\nopen(sys.argv[1], 'a').write(f'{os.getpid()}\\\\n')\\n"
    return code + how + "\\ntime.sleep(60)"
subprocess.Popen([sys.executable, "-c", child(""), sys.argv[1]])
subprocess.Popen([sys.executable, "-c", child(""), sys.argv[1]], start_new_session=True)
subprocess.Popen([sys.executable, "-c", child("signal.signal(signal.SIGTERM, signal.SIG_IGN)"), sys.argv[1]])
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
time.sleep(float(sys.argv[2]))
"""


def family(file: Path, count: int = 4) -> list[int]:
    """The processes of FAMILY once all of them live."""

    def found() -> list[int]:
        pids = [int(line) for line in file.read_text().split()] if file.exists() else []
        return pids if len(pids) == count else []

    return list(until(found, what="the family"))


@pytest.fixture(autouse=True)
def fresh() -> None:
    process.allow()


def test_lines_status_and_environment(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import os, sys; print('a', os.environ['X']); print('b', file=sys.stderr); print('1%\\r2%'); sys.exit(7)"
    status = process.run([PYTHON, "-c", code], cwd=tmp_path, line=lines.append, env={"X": "y"})
    assert (status, sorted(lines)) == (7, ["1%", "2%", "a y", "b"])


def test_what_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    start = time.monotonic()
    process.run([PYTHON, "-c", FAMILY, str(tmp_path / "pids"), "0.5"], cwd=tmp_path, line=lambda _: None)
    assert not [pid for pid in family(tmp_path / "pids") if _lives(pid)]
    assert time.monotonic() - start < 6 * busy()


def test_stop_all_ends_deaf_and_runaway_processes_within_three_seconds(tmp_path: Path) -> None:
    raised: list[BaseException] = []

    def body() -> None:
        try:
            process.run([PYTHON, "-c", FAMILY, str(tmp_path / "pids"), "60"], cwd=tmp_path, line=lambda _: None)
        except process.StoppedError as error:
            raised.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    pids = family(tmp_path / "pids")
    time.sleep(0.3)  # the deaf one closes its ears
    start = time.monotonic()
    process.stop_all()
    thread.join(30)
    assert time.monotonic() - start < 3.0 + 0.5 * (busy() - 1)
    assert not [pid for pid in pids if _lives(pid)]
    assert raised
    with pytest.raises(process.StoppedError, match="not started"):
        process.run([PYTHON, "-c", ""], cwd=tmp_path, line=lambda _: None)


@pytest.mark.parametrize("victim", ["asker", "supervisor"])
def test_sigkill_leaves_nothing(tmp_path: Path, victim: str) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.processes import process\n"
        "process.run(sys.argv[1:], cwd=Path.cwd(), line=lambda _: None)"
    )
    asker = subprocess.Popen([PYTHON, "-c", code, PYTHON, "-c", FAMILY, str(tmp_path / "pids"), "60"])
    pids = family(tmp_path / "pids")
    time.sleep(0.3)
    if victim == "asker":
        asker.kill()
    else:
        supervisor = int(Path(f"/proc/{asker.pid}/task/{asker.pid}/children").read_text().split()[0])
        pids = [pid for pid in pids if os.getsid(pid) == supervisor]  # a session of its own is beyond reach then
        os.kill(supervisor, signal.SIGKILL)
    until(lambda: not [pid for pid in pids if _lives(pid)], 3.0 * busy(), "all to end")
    asker.wait(10)
    for pid in family(tmp_path / "pids"):
        if _lives(pid):
            os.kill(pid, signal.SIGKILL)


def test_an_exception_in_a_callback_stops_the_command(tmp_path: Path) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("listener")

    start = time.monotonic()
    with pytest.raises(RuntimeError, match="listener"):
        process.run([PYTHON, "-u", "-c", "import time; print(1); time.sleep(60)"], cwd=tmp_path, line=fail)
    assert time.monotonic() - start < 4 * busy()
