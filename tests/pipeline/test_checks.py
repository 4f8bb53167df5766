"""What is checked before anything runs."""

import pytest

from dd.errors import DDError
from pipeline.checks import check_run
from pipeline.stage import Options
from tests.pipeline.conftest import Toy


def test_wrong_numbers(toy: Toy) -> None:
    with pytest.raises(DDError, match="expected an accelerator_limit of 1 or more stages at once, found 0: use 1"):
        check_run(toy.root, [], [], Options(accelerator_limit=0))
    with pytest.raises(DDError, match="expected dask_workers of 0"):
        check_run(toy.root, [], [], Options(dask_workers=-1))


def test_dask_that_is_not_there(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.checks.find_spec", lambda _: None)
    with pytest.raises(DDError, match=r"expected prefect-dask for dask_workers, found none: pip install .*\[dask\]'"):
        check_run(toy.root, [], [], Options(dask_workers=1))
