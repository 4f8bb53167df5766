"""Stage teacher: `python -m stages.teacher EXPERIMENT` -> data/<experiment>/teacher/.

The zoo's files (shipped, or fetched from the hub and checked), or the user's own (`teacher.path`), as safetensors with
teacher.json beside them: sizes, class names, hashes, where they came from. Every later stage reads this folder only.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from dd import config
from dd.checkpoints import networks, teachers, zoo
from dd.checkpoints.teachers import TeacherInfo
from dd.errors import DDError
from dd.presets.needs import demand
from dd.system.entry import run_stage, stage_parser
from dd.system.files import publish


def add_captions(experiment: config.Experiment, info: TeacherInfo, root: Path, folder: Path) -> None:
    """The experiment's captions beside its teacher, checked: what later stages draw from. Raises DDError."""
    files = experiment.teacher.captions
    if (files is None) != (info.text_encoder is None):
        kind = "classes" if info.text_encoder is None else f"captions ({info.text_encoder})"
        raise DDError(f"teacher {info.name} draws from {kind}: set condition and teacher.captions accordingly")
    if files is None:
        return
    from dd.text.captions import caption_file, copy_captions

    splits: dict[Literal["train", "test"], str] = {"train": files.train, "test": files.test}
    for split, file in splits.items():
        copy_captions(root / file, caption_file(folder, split), files.column, root / "captions")


def main(name: str) -> str:
    """Write the experiment's teacher and publish it as a whole. Returns what was done, in one line."""
    root = config.project_root()
    experiment = config.load_experiment(name)
    demand(experiment, root, name)
    networks.refuse_missing(name, experiment)
    settings = experiment.teacher
    if (family := zoo.entry(settings.name, "teacher").family) != experiment.family:
        raise DDError(
            f"{name}: expected a teacher of family {experiment.family}, '{settings.name}' is of family {family}"
        )
    scratch = root / "work" / config.fingerprint("teacher", name, settings)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        info = teachers.materialise(settings.name, scratch, settings.path, settings.random_blocks, settings.nesting)
        add_captions(experiment, info, root, scratch)
        publish(scratch, root / "data" / name / "teacher")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return f"wrote data/{name}/teacher: {info.name}, {len(info.classes) or 'no'} classes, SHA-256 {info.sha256[:12]}..."


if __name__ == "__main__":
    run_stage(lambda arguments: main(arguments.name), stage_parser(__doc__))
