"""One supervised command: its lines as they come, its end, and how to stop it from any thread.

The commands that run are kept here, in a module of its own, so that a flow (which Prefect pickles) holds none of them.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SUPERVISOR = Path(__file__).with_name("supervisor.py")
TICK = 0.5  # seconds between two calls of `tick`

stopping = threading.Event()
_running: set["subprocess.Popen[str]"] = set()
_lock = threading.Lock()


class StoppedError(Exception):
    """The run is being stopped; the command was ended or never started."""


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    line: Callable[[str], None],
    tick: Callable[[], None] | None = None,
    env: Mapping[str, str] | None = None,
    hold: Sequence[int] = (),
) -> int:
    """Run a command under its supervisor and return its exit status.

    `line` gets each line of its output (standard error included; the steps of a progress bar count as lines) and
    `tick` is called every half second meanwhile, both in this thread. `env` is added to the environment. The file
    descriptors in `hold` stay open until the last process of the command is gone.

    Raises StoppedError if `stop_all` was called before or during the run. If `line` or `tick` raises, or this thread is
    interrupted, the command is stopped before the exception goes on.
    """
    child = _start(command, cwd, env, hold)
    try:
        lines = _reader(child)
        while (text := _next(lines)) is not None:
            if text:
                line(text)
                continue
            if child.poll() is not None:
                break  # the supervisor was killed, what it supervised still holds the pipe: swept below
            if tick is not None:
                tick()
        status = child.wait()
    except BaseException:
        _stop(child)
        raise
    finally:
        with _lock:
            _running.discard(child)
        _close(child)
    if stopping.is_set():
        raise StoppedError(f"stopped: {' '.join(command)}")
    return status


def stop_all(wait: float = 5.0) -> None:
    """Stop everything that runs and refuse to start more; returns when all is gone, or after `wait` seconds."""
    stopping.set()
    with _lock:
        running = list(_running)
    for child in running:
        _signal(child, signal.SIGTERM)
    for child in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(wait)


def allow() -> None:
    """Forget an earlier stop: a new run begins in this process."""
    stopping.clear()


def python_first() -> str:
    """PATH with this interpreter's folder first: `python` in dvc.yaml is the one that runs the flow."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _start(
    command: Sequence[str], cwd: Path, env: Mapping[str, str] | None, hold: Sequence[int]
) -> "subprocess.Popen[str]":
    with _lock:  # a stop comes either before the start or after the command is listed
        if stopping.is_set():
            raise StoppedError(f"not started: {' '.join(command)}")
        child = subprocess.Popen(
            [sys.executable, "-S", "-E", str(SUPERVISOR), *command],
            cwd=cwd,
            env={**os.environ, "PATH": python_first(), "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=tuple(hold),
            start_new_session=True,
        )
        _running.add(child)
    return child


def _reader(child: "subprocess.Popen[str]") -> "queue.SimpleQueue[str | None]":
    """Lines of the child in a queue, None at the end: a thread reads, so that the caller can also tick."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert child.stdout is not None
        with child.stdout:
            for text in child.stdout:
                if text := text.rstrip():
                    lines.put(text)
        lines.put(None)

    threading.Thread(target=read, daemon=True, name=f"lines of {child.pid}").start()
    return lines


def _next(lines: "queue.SimpleQueue[str | None]") -> str | None:
    """The next line, an empty one after half a second without any, None after the last."""
    try:
        return lines.get(timeout=TICK)
    except queue.Empty:
        return ""


def _stop(child: "subprocess.Popen[str]") -> None:
    _signal(child, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(5.0)


def _close(child: "subprocess.Popen[str]") -> None:
    """End what a killed supervisor left, and give its pipe back."""
    if child.poll() is None or child.returncode < 0:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.stdin is not None:
        child.stdin.close()


def _signal(child: "subprocess.Popen[str]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)
