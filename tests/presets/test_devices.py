"""The table of cards."""

import pytest

from dd.errors import DDError
from dd.presets.devices import card


def test_unknown_devices_are_refused():
    with pytest.raises(DDError, match=r"no device 'h10' in the table; did you mean h100"):
        card("h10")
