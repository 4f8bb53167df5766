"""Loss curves of a short run of each family against stored ones: a change of the arithmetic shows at once.

`python -m tests.integration.test_golden_curves` writes tests/data/loss_curves.json anew, after a wanted change.
"""

import json
from pathlib import Path

import pytest

from dd.distillation.task import Task
from dd.distillation.training import train
from tests.helpers.paths import DATA
from tests.helpers.tiny import Cycle, settings, tiny_pairs, tiny_student, tiny_teacher

FILE = DATA / "loss_curves.json"
FAMILIES = ("llamagen", "var")
# Other processors round otherwise, and twelve steps amplify it.
TOLERANCE = 0.02


def curves(family: str, folder: Path) -> dict[str, list[float]]:
    """Every loss term of twelve steps with all terms on, at fixed seeds."""
    teacher = tiny_teacher(family)
    pairs = tiny_pairs(teacher, 32)
    config = settings(
        muon_lr=0.01,
        student={"teacher_input": True, "noise_logits": True, "refinements": 1},
        losses={"own_prefix": 0.5, "regression": 0.1},
    )
    student = tiny_student(teacher, family, teacher_input=True, noise_logits=True, refinements=1)
    outcome = train(
        student, Task(teacher, Cycle(pairs.take(slice(24)), 4), pairs.take(slice(24, None)), folder), config
    )
    return {
        name: [round(value, 5) for _, value in points]
        for name, points in sorted(outcome.curves.items())
        if name.startswith(("loss/", "held_out/"))
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_the_stored_ones(family: str, tmp_path: Path):
    stored, found = json.loads(FILE.read_text())[family], curves(family, tmp_path)
    assert found.keys() == stored.keys()
    for name, values in stored.items():
        assert found[name] == pytest.approx(values, rel=TOLERANCE), name
    terms = {name for name in found if name.startswith("loss/")}
    assert {"loss/cross_entropy", "loss/own_prefix", "loss/auxiliary", "loss/regression"} <= terms


if __name__ == "__main__":
    import tempfile

    made = {}
    for one in FAMILIES:
        with tempfile.TemporaryDirectory() as scratch:
            made[one] = curves(one, Path(scratch))
    FILE.write_text(json.dumps(made, indent=1) + "\n")
