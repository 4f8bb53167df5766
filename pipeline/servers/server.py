"""The project's own Prefect server: its settings, where it runs, starting one, and finding one that can be used."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dd.errors import DDError
from pipeline.processes.process import GUARD

HOST, PORT = "127.0.0.1", 4200
SHOWN = "report"  # the folder that is served beside the UI
START_LIMIT = 600.0  # seconds that a server may take to answer at first


@dataclass(frozen=True)
class Server:
    """A running server: its API (`http://127.0.0.1:4200/api`), the report beside it, and the process that owns it."""

    api: str
    files: str
    pid: int

    @property
    def ui(self) -> str:
        return self.api.removesuffix("/api")


def home(root: Path) -> Path:
    """The folder of the project's server: database, settings, logs of its processes."""
    return root / ".prefect"


def settings(root: Path, api: str | None = None) -> dict[str, str]:
    """Environment for Prefect; it must be set before Prefect is imported.

    What the user has set wins, except for telemetry, which stays off. A client tries again for some two minutes, so
    that a server which restarts in the middle of a run does not end the run.
    """
    wanted = {
        "PREFECT_HOME": str(home(root)),
        "PREFECT_CLIENT_MAX_RETRIES": "6",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DD_ROOT": str(root),
    }
    fixed = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    if api:
        fixed["PREFECT_API_URL"] = api
    return {key: value for key, value in wanted.items() if key not in os.environ} | fixed


def find(root: Path) -> str | None:
    """The API to use: PREFECT_API_URL, else the project's own server, else None.

    Raises DDError if PREFECT_API_URL is set and nothing answers there.
    """
    if named := os.environ.get("PREFECT_API_URL"):
        if not healthy(named):
            raise DDError(
                f"expected a Prefect API at {named} (PREFECT_API_URL), found no answer: start it, unset the variable, "
                "or add --no-server"
            )
        return named
    own = recorded(root)
    return own.api if own and healthy(own.api) else None


def healthy(api: str, timeout: float = 3.0) -> bool:
    """Does a Prefect API answer there?"""
    try:
        with urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=timeout) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def recorded(root: Path) -> Server | None:
    """The server that `make ui` wrote down; it may have ended since."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Server(**json.loads((home(root) / "server.json").read_text()))
    return None


@contextlib.contextmanager
def record(root: Path, server: Server) -> Iterator[Server]:
    """Write the server down for others to find, and take the note back at the end."""
    path = home(root) / "server.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(server)))
    os.replace(part, path)
    try:
        yield server
    finally:
        path.unlink(missing_ok=True)


def free_port(wanted: int = PORT) -> int:
    """`wanted`, or one that the system picks if that is taken."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise DDError(f"expected a free port on {HOST}, found none")


def start(root: Path, port: int | None = None, env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
    """Start a Prefect server on the loopback and return when it answers; it ends with this process.

    Raises DDError if it does not come up, with where its log is.
    """
    port = free_port() if port is None else port
    api = f"http://{HOST}:{port}/api"
    home(root).mkdir(parents=True, exist_ok=True)
    log = home(root) / "server.log"
    command = ["prefect", "server", "start", "--host", HOST, "--port", str(port)]
    child = guarded(command, root, log, {**settings(root, api), **(env or {})})
    deadline = time.monotonic() + START_LIMIT
    while not healthy(api, 1.0):
        if child.poll() is not None or time.monotonic() > deadline:
            end(child)
            raise DDError(f"expected a Prefect server at {api}, it did not start: its log is {log}")
        time.sleep(0.1)
    return child


def serve_files(root: Path, port: int) -> "subprocess.Popen[bytes]":
    """Serve the folder of the report on the loopback, so that a link in the UI can open it."""
    folder = root / SHOWN
    folder.mkdir(exist_ok=True)
    command = ["http.server", "--bind", HOST, "--directory", str(folder), str(port)]
    return guarded(command, root, home(root) / "files.log", {})


def guarded(module: list[str], root: Path, log: Path, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """`python -m MODULE ...` under a guard: it ends with this process. Output goes to `log`."""
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-S", "-E", str(GUARD), sys.executable, "-m", *module],
            cwd=root,
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(child: "subprocess.Popen[bytes]") -> None:
    """End a guarded process and wait for it."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(10)


def port_of(api: str) -> int:
    """4200 of `http://127.0.0.1:4200/api`."""
    return urlsplit(api).port or PORT
