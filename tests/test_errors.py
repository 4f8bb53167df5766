"""Errors and the statuses that shells and flows read."""

import signal

from dd.errors import DDError, Stopped, TemporaryError


def test_statuses():
    assert TemporaryError.status == 75
    assert Stopped.status == 128 + signal.SIGTERM
    assert issubclass(TemporaryError, DDError)
    assert issubclass(Stopped, DDError)
    assert issubclass(DDError, ValueError)
