"""To which revision the results of a run belong."""

from pipeline import provenance
from tests.pipeline.conftest import Toy


def test_a_dvc_lock_that_is_not_the_committed_one(toy: Toy) -> None:
    assert provenance.warning(toy.root) is None
    with (toy.root / "dvc.lock").open("a") as lock:
        lock.write("# changed\n")
    text = "dvc.lock differs from the commit: commit it, or the results of this run belong to no revision"
    assert provenance.warning(toy.root) == text
    assert f"warning: {text}" in toy.run("trajectories@toy-a").replace("\n", " ")
