"""How every stage begins and ends: exit statuses, one line for an error, signals as they were."""

import argparse
import signal

import pytest

from dd.errors import DDError, Stopped, TemporaryError
from dd.system.entry import run_stage, stage_parser


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    monkeypatch.setattr("sys.argv", ["stage", "toy"])
    return stage_parser("A stage.", "an experiment")


def test_usr1_passes_during_the_work_and_is_as_before_afterwards(toy: argparse.ArgumentParser):
    seen = []
    before = signal.getsignal(signal.SIGUSR1)
    run_stage(lambda _: str(seen.append(signal.getsignal(signal.SIGUSR1))), toy)
    assert seen == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DDError("no"), "error: no"),
        (TemporaryError("later", 75), 75),
        (Stopped("saved"), 143),
        (KeyboardInterrupt(), 130),
    ],
)
def test_statuses(toy: argparse.ArgumentParser, error: BaseException, status: object):
    def fail(_: argparse.Namespace) -> str:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_stage(fail, toy)
    assert ended.value.code == status
