"""A project with one experiment in its params.yaml, comments included, and nothing made yet."""

from pathlib import Path

PARAMS = """\
# a comment of the user's
seed: 1   # kept
experiments:
  mine:   # so is this
    family: llamagen
    teacher: {name: "llamagen-b", guidance:   1.5}
    student: llamagen-b-dd
    evaluate: {samplers: [{name: dd}]}
"""


def make_params_project(root: Path) -> Path:
    """A folder with a params.yaml and an empty zoo; $DD_ROOT must already name it."""
    (root / "zoo").mkdir()
    (root / "params.yaml").write_text(PARAMS.replace("seed: 1   # kept\n", ""))
    return root
