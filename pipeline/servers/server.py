"""The project's own Prefect server: its settings, where it runs, starting one, and finding one that can be used."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from dd.errors import DDError
from pipeline.processes.process import SUPERVISOR
from pipeline.servers.mark_crashed import LOOPBACK, open_url

HOST, PORT = "127.0.0.1", 4200
DEPLOYMENTS = {"experiments": "run-experiments", "sweep": "run-sweep"}  # by the name of their flow
SHOWN = "report"  # the folder that is served beside the UI
START_PATIENCE, START_LIMIT = 25.0, 600.0  # seconds until a slow start is told of, and until it has failed


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
    fixed = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", **_without_proxy()}
    if api:
        fixed["PREFECT_API_URL"] = api
    return {key: value for key, value in wanted.items() if key not in os.environ} | fixed


def _without_proxy() -> dict[str, str]:
    """Environment in which no client takes a proxy to this machine itself."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [*(host for host in known.split(",") if host), *(host for host in LOOPBACK if host not in known.split(","))]
    return {"no_proxy": ",".join(hosts), "NO_PROXY": ",".join(hosts)}


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
        with open_url(f"{api.rstrip('/')}/health", timeout) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def check_version(api: str, own: str) -> str | None:
    """A warning if the server is older than this client, whose version is `own`; None if it is not.

    Raises DDError if it is of another major version, whose API another client does not speak.
    """
    try:
        with open_url(f"{api.rstrip('/')}/admin/version", 10.0) as answer:
            found = str(json.load(answer))
    except (OSError, ValueError):
        return None  # the call that follows says what is wrong
    theirs, mine = ([int(part) for part in re.findall(r"\d+", version)[:3]] for version in (found, own))
    if theirs[:1] != mine[:1]:
        raise DDError(f"expected a Prefect {mine[0]} server at {api}, found {found}: update it, or add --no-server")
    if theirs >= mine:
        return None
    return f"the Prefect server at {api} is older ({found}) than this client ({own}): update it if a call fails"


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


def start(
    root: Path,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> "subprocess.Popen[bytes]":
    """Start a Prefect server on the loopback and return when it answers; it ends with this process.

    `say` gets one line if that takes long. Raises DDError if it does not come up, with where its log is.
    """
    port = free_port() if port is None else port
    api = f"http://{HOST}:{port}/api"
    home(root).mkdir(parents=True, exist_ok=True)
    log = home(root) / "server.log"
    command = ["pipeline.servers.prefect_server", "server", "start", "--host", HOST, "--port", str(port)]
    child = supervised(command, root, log, {**settings(root, api), **(env or {})})
    started, said = time.monotonic(), False
    while not healthy(api, 1.0):
        seconds = time.monotonic() - started
        if child.poll() is not None or seconds > START_LIMIT:
            end(child)
            raise DDError(f"expected a Prefect server at {api}, it did not start: its log is {log}")
        if seconds > START_PATIENCE and not said:
            say(f"the Prefect server at {api} has not answered for {seconds:.0f} s; its log is {log}")
            said = True
        time.sleep(0.1)
    return child


def serve_files(root: Path, port: int) -> "subprocess.Popen[bytes]":
    """Serve the folder of the report on the loopback, so that a link in the UI can open it."""
    folder = root / SHOWN
    folder.mkdir(exist_ok=True)
    command = ["http.server", "--bind", HOST, "--directory", str(folder), str(port)]
    return supervised(command, root, home(root) / "files.log", {})


def supervised(module: list[str], root: Path, log: Path, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """`python -m MODULE ...` under a supervisor: it ends with this process. Output goes to `log`."""
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-S", "-E", str(SUPERVISOR), sys.executable, "-m", *module],
            cwd=root,
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(child: "subprocess.Popen[bytes]") -> None:
    """End a supervised process and wait for it."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(10)
