"""Digests of the code behind the stages of zoo/dvc.yaml -> zoo/data/code/: a changed formula reruns what it concerns.

As `stages.code` for the experiments: comments and docstrings do not count.
"""

from __future__ import annotations

import argparse
import json

from dd.config import FAMILIES
from dd.system.code import CODE, PLUMBING, digests
from dd.system.entry import run_stage
from dd.system.files import write_text
from zoo.settings import HERE

STAGES = ("dataset", "extractor", "reference", "validation", "tokenizer", "teacher")
# What settles sizes, speaks to the user or trains students: no network's weights follow from it.
WITHOUT = (
    *PLUMBING,
    "zoo/__init__.py",
    "zoo/settings.py",
    "zoo/sanity.py",
    "dd/checkpoints/",
    "dd/models/heads.py",
    "dd/models/student.py",
    *(f"dd/models/{family}/student.py" for family in FAMILIES),
)


def main() -> str:
    """Write the digests. Returns nothing worth logging."""
    for stage in STAGES:
        files = [CODE / "zoo" / f"{stage}.py"]
        if stage in ("tokenizer", "teacher"):  # found by their name
            files += [CODE / "dd" / "models" / family / "family.py" for family in FAMILIES]
        text = json.dumps(digests(files, WITHOUT), indent=1) + "\n"
        write_text(HERE / "data" / "code" / f"{stage}.json", text)
    return ""


if __name__ == "__main__":
    run_stage(lambda arguments: main(), argparse.ArgumentParser(description=__doc__))
