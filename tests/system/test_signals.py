"""Signals as requests."""

import os
import signal
import threading

from dd.system.signals import Requests, ignore_warnings


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
