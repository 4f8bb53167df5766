"""A project with imagined results."""

from pathlib import Path

import pytest

from tests.helpers.report_rows import imagined_rows, write_results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_results(root, imagined_rows())
    (root / "params.yaml").write_text("experiments: {llamagen-toy: {teacher: {name: '<b>toy</b>'}}}")
    return root
