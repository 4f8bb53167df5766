"""Shared by all tests: few threads (pytest shares its cores), no network, no colours, nothing in the user's folders."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
for name, value in {
    "HF_HUB_OFFLINE": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "NO_COLOR": "1",
    "CI": "1",
    "MPLBACKEND": "agg",
}.items():
    os.environ.setdefault(name, value)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A project whose teacher and student ship; the student was trained from the points 0 and 4."""
    from tests.helpers.toy_project import make_shipped_project

    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DD_ROOT", str(root))
        return make_shipped_project(root)


@pytest.fixture
def shipped_project(shipped, monkeypatch):
    """The same as the project that commands are called in."""
    monkeypatch.setenv("DD_ROOT", str(shipped))
    monkeypatch.chdir(shipped)
    return shipped


@pytest.fixture(scope="module")
def imagined_results(tmp_path_factory):
    """A project with results that nobody measured."""
    from tests.helpers.report_rows import imagined_rows, write_results

    root = tmp_path_factory.mktemp("project")
    write_results(root, imagined_rows())
    (root / "params.yaml").write_text("experiments: {llamagen-toy: {teacher: {name: '<b>toy</b>'}}}")
    return root


@pytest.fixture
def selectable(tmp_path, monkeypatch):
    """A project whose experiment can be evaluated, with a validation reference and few values to try."""
    from dd.evaluation import selection
    from dd.metrics import distances
    from tests.helpers.small.evaluation import add_reference, make_evaluation

    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setattr(distances, "KID_SUBSETS", 2)
    few = {"guidance": (0.5, 1.0), "temperature": (1.0, 2.0), "noise_scale": (1.0, 1.5, 2.0)}
    monkeypatch.setattr(selection, "FACTORS", few)
    make_evaluation(tmp_path)
    add_reference(tmp_path)
    return tmp_path


@pytest.fixture
def zoo_project(tmp_path, monkeypatch):
    """A project folder whose zoo ships one tiny teacher, a deeper one, and a student; no network."""
    from tests.helpers.small.zoo import make_zoo

    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setenv("DD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return make_zoo(tmp_path)
