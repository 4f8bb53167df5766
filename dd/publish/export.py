"""From a model in memory to a complete folder: weights, card, picture, page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dd.api import Model, Steps, save_grid
from dd.checkpoints import zoo
from dd.checkpoints.exported import Settings, TokenizerOnly, write_folder
from dd.checkpoints.teachers import tensors_hash
from dd.config import project_root
from dd.evaluation.rows import Row, read_rows
from dd.publish.card import model_card
from dd.publish.space import write_page
from dd.system.files import write_text

log = logging.getLogger(__name__)
PICTURE = "samples.png"
COLUMNS = 10


def export(
    model: Model, target: Path, teacher: bool = False, prompts: Sequence[str] = (), address: str = "owner/name"
) -> Settings:
    """Write a model with its card into a folder (`dd.checkpoints.exported.write_folder`), and a page to play with it.

    prompts: what a text-to-image model draws for the picture; without any it gets none. address: the repository that
    the card speaks of. Raises DDError.
    """
    exported = model.exported()
    rows = results(model)
    picture = bool(model.classes or prompts)
    base = _base_model(model.teacher_name)
    card = model_card(exported.settings, rows, model.provenance, base, PICTURE if picture else None, address)
    settings = write_folder(target, exported, teacher)
    if picture:
        draw_picture(model, target / PICTURE, prompts)
    write_page(target, text=bool(settings.text_encoder))
    write_text(target / "README.md", card)
    return settings


def results(model: Model) -> list[Row]:
    """The rows of the project's results that were measured on this very student; none if there are no such rows.

    A student that ships comes from another experiment than the one that it stands for (a longer training).
    """
    files = sorted((project_root() / "results").glob("*/rows.json"), key=lambda path: path.parent.name != model.name)
    if not files:
        return []
    exported = model.exported()
    own = tensors_hash(exported.student.state_dict(), exported.settings.family, exported.sizes)
    for path in files:
        rows = read_rows(path)
        if {row["student_sha256"] for row in rows} - {None} == {own}:
            return rows
    log.warning("no rows in %s were measured on this student: the card goes without results", files[0].parent.parent)
    return []


def draw_picture(model: Model, path: Path, prompts: Sequence[str] = ()) -> None:
    """Ten images a row from one noise: the teacher where there is one, then the student with most steps first."""
    steps: list[Steps] = list(range(len(model.timesteps), 0, -1))
    if not isinstance(model.teacher, TokenizerOnly):
        steps.insert(0, "teacher")
    rows = [model.sample(prompts=list(prompts) or None, n=COLUMNS, steps=number) for number in steps]
    save_grid(np.concatenate(rows), path, COLUMNS)


def _base_model(teacher: str) -> str | None:
    """The repository of the teacher's weights, if the hub has them."""
    entry = zoo.entries().get(teacher)
    return entry.file.repo if entry else None
