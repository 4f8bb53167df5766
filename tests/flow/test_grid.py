"""The solver's settings."""

import dataclasses
import json
import math
import re

import pytest

from dd.errors import DDError
from dd.flow.grid import Solver


def test_solver_is_json() -> None:
    assert Solver(**json.loads(json.dumps(dataclasses.asdict(Solver(ratio=1.1))))) == Solver(ratio=1.1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"first": 0}, "solver.first must be above 0 and at most 1, got 0"),
        ({"ratio": 1.5}, "solver.ratio must be above 1 and at most 1.3, or steps are unstable, got 1.5"),
        ({"ratio": math.nan}, "solver.ratio must be above 1 and at most 1.3, or steps are unstable, got nan"),
        ({"negligible": 0.5}, "solver.negligible must be above 0 and at most 0.01, or frequencies are biased, got 0.5"),
        ({"max_evaluations": 1}, "solver.max_evaluations must be at least 2, got 1"),
    ],
)
def test_solver_is_checked(settings: dict[str, float], text: str) -> None:
    with pytest.raises(DDError, match=f"^{re.escape(text)}$"):
        Solver(**settings)
