"""Signals as requests."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dd.system.signals import Requests, ignore_warnings
from tests.helpers.paths import ROOT


def test_a_warning_asks_to_save_and_sigterm_to_end_as_well():
    before = signal.getsignal(signal.SIGTERM)
    with Requests() as asked:
        assert (asked.save, asked.stop) == (False, False)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert (asked.save, asked.stop) == (True, False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (asked.save, asked.stop) == (True, True)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # a second one ends the process
    assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_are_left_alone():
    seen = []

    def work() -> None:
        with Requests() as asked:
            seen.append(asked._before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [{}]


def test_a_warning_passes_where_nobody_asks():
    before = signal.getsignal(signal.SIGUSR1)
    with ignore_warnings():
        os.kill(os.getpid(), signal.SIGUSR1)  # would end the process
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize(
    ("error", "wanted"), [("KeyboardInterrupt", "stopped\n"), ("KeyError('mine')", "KeyError: 'mine'\n")]
)
def test_ctrl_c_during_imports_is_one_line(tmp_path: Path, error: str, wanted: str):
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("from dd.system.signals import brief_interrupts\nbrief_interrupts()\n")
    (package / "slow.py").write_text(f"raise {error}\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "pack.slow"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.endswith(wanted)
    assert ("Traceback" in done.stderr) == (error != "KeyboardInterrupt")


@pytest.mark.parametrize("package", ["stages", "zoo"])
def test_the_packages_of_stages_ask_for_it(package: str):
    assert "brief_interrupts()" in (ROOT / package / "__init__.py").read_text()
