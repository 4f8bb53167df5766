"""A toy project per test, one Prefect server per session in a home of its own, and ways to look for survivors."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.servers import server
from pipeline.servers.mark_crashed import post
from tests.helpers.paths import ROOT

# A shell that starts a job in the background lets it ignore Ctrl-C, and every process below would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["Prefect", "Toy", "busy", "post", "until"]

TOY = Path(__file__).parent / "toy"
QUIET = {
    "DVC_NO_ANALYTICS": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@example.org",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.org",
}


@dataclass
class Toy:
    """A project in a temporary folder: git, DVC, two experiments."""

    root: Path
    env: dict[str, str]

    def control(self, **manners: Mapping[str, Any]) -> None:
        """`trajectories_toy_a={"pause": 1}`: how a stage behaves from now on."""
        named = {key.replace("_toy_", "@toy-"): value for key, value in manners.items()}
        (self.root / "control.json").write_text(json.dumps(named))

    def start(
        self, *arguments: str, module: str = "pipeline.terminal.run", api: str | None = None
    ) -> "subprocess.Popen[str]":
        env = {**self.env, **({"PREFECT_API_URL": api} if api else {})}
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(
        self, *arguments: str, api: str | None = None, status: int = 0, module: str = "pipeline.terminal.run"
    ) -> str:
        """Output of a whole run, which must end with `status`."""
        child = self.start(*arguments, module=module, api=api)
        output, _ = child.communicate(timeout=300)
        assert child.returncode == status, output
        return output

    def sweep(self, *words: str, status: int = 0, api: str | None = None) -> str:
        """Output of a whole sweep."""
        return self.run(*words, status=status, api=api, module="pipeline.terminal.run_sweep")

    def command(self, *words: str) -> str:
        done = subprocess.run(words, cwd=self.root, env=self.env, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dvc(self, *words: str) -> str:
        return self.command(sys.executable, "-m", "dvc", *words)

    def log(self) -> list[str]:
        """The units of work done so far."""
        file = self.root / "log"
        return file.read_text().splitlines() if file.exists() else []

    def alive(self) -> list[int]:
        """Processes of stages that still live."""
        file = self.root / "pids"
        pids = [int(line) for line in file.read_text().split()] if file.exists() else []
        return [pid for pid in pids if _lives(pid)]

    def survivors(self) -> dict[int, str]:
        """Every process whose working directory is this project, with its command."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "cwd").resolve() == self.root and "State:\tZ" not in (entry / "status").read_text():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[-200:]
            except OSError:
                continue
        return found


def busy() -> float:
    """How many times longer things may take on this machine at this moment; 1 on an idle one."""
    return max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def until(true: Callable[[], Any], seconds: float = 300.0, what: str = "") -> Any:
    """Wait for something and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := true():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what or true}")


def _lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The tests' environment without what a user may have set."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "DD_", "DVC_"))}
    here = str(ROOT)
    path = os.pathsep.join([str(Path(sys.executable).parent), mine.get("PATH", os.defpath)])
    return {**mine, **QUIET, "PYTHONPATH": here, "PATH": path, "NO_COLOR": "1", "TERM": "dumb"}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The toy project, all stages done and committed."""
    toy = Toy(tmp_path_factory.mktemp("template") / "toy", environment)
    shutil.copytree(TOY, toy.root)
    (toy.root / ".gitignore").write_text(
        "/work/\n/log\n/pids\n/beat\n/failures\n/control.json\n/.prefect/\n__pycache__\n"
    )
    toy.command("git", "init", "-q", "-b", "main")
    toy.dvc("init", "-q")
    toy.dvc("config", "core.analytics", "false")
    toy.dvc("config", "core.check_update", "false")
    toy.dvc("repro", "-q")
    toy.command("git", "add", "-A")
    toy.command("git", "commit", "-qm", "toy")
    (toy.root / "log").unlink()
    (toy.root / "pids").unlink()
    shutil.rmtree(toy.root / "work")
    return toy.root


@pytest.fixture
def toy(template: Path, tmp_path: Path, environment: dict[str, str]) -> Iterator[Toy]:
    """A copy of the toy project; whatever a test leaves running there fails it."""
    project = Toy((tmp_path / "toy").resolve(), environment)
    shutil.copytree(template, project.root, symlinks=True)
    yield project
    left = project.survivors()
    for pid in [*left, *project.alive()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    assert not left


class Prefect:
    """A Prefect server for the session, in a home of its own; it can go away and come back."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.root, self.port = root, server.free_port(0)
        self.env = {**environment, "PREFECT_HOME": str(root / ".prefect")}
        self.api = f"http://{server.HOST}:{self.port}/api"
        self.start()

    def start(self) -> None:
        self.child = server.start(self.root, self.port, self.env)

    def stop(self) -> None:
        server.end(self.child)


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Prefect]:
    running = Prefect(tmp_path_factory.mktemp("server"), environment)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def api(prefect: Prefect) -> str:
    """The address of the session's server."""
    return prefect.api
