"""What the Prefect UI shows of a run: progress, images, results, provenance, the report.

Artifacts are for the reader of a run, never a condition of it: a server that does not answer costs a line in the log
and a pause of a minute before the next try.
"""

import base64
import io
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import artifacts
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from pipeline.graph import Stage
from pipeline.servers.server import SHOWN
from pipeline.terminal.wording import describe
from pipeline.terminal.wording import percent as per_cent

logger = logging.getLogger(__name__)

EVERY = 2.0  # seconds between two updates of one progress artifact
PAUSE = 60.0  # seconds without tries after one has failed
IMAGE_LIMIT = 2_000_000  # bytes; a larger picture is named, not shown
IMAGES_PER_STAGE = 12
_MEDIA = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
_quiet_until = [0.0]


class Progress:
    """One progress bar of the UI, fed with the progress (dd/system/progress.py) of a stage or a sweep's point."""

    artifact: UUID | None

    def __init__(self, name: str) -> None:
        self.name, self.artifact, self.shown, self.last = name, None, 0.0, -1.0

    def __call__(self, progress: dict[str, Any]) -> None:
        percent = per_cent(progress)
        now = time.monotonic()
        if percent is None or percent == self.last or (now - self.shown < EVERY and percent < 100):
            return
        self.shown, self.last = now, percent
        text = f"{self.name}: {describe(progress)}"
        if self.artifact is None:
            key = key_of("progress", self.name)
            self.artifact = _try(artifacts.create_progress_artifact, percent, key=key, description=text)
        else:
            _try(artifacts.update_progress_artifact, self.artifact, percent, description=text)


def images(root: Path, stage: Stage) -> None:
    """Every picture among a stage's outputs: sample grid, quality plot, training curve."""
    for path in pictures(root, stage)[:IMAGES_PER_STAGE]:
        key = key_of(stage.experiment or stage.group, path.stem)
        text = f"`{path.relative_to(root)}` of {stage.name}"
        if path.stat().st_size > IMAGE_LIMIT:
            _try(artifacts.create_markdown_artifact, f"{text} is too large to show", key=key)
            continue
        _image(path.read_bytes(), _MEDIA[path.suffix], key, text)
    curves(root, stage)


def curves(root: Path, stage: Stage) -> None:
    """The training curves that a stage keeps as numbers (DVCLive), drawn as in the report."""
    folder = next((root / out for out in stage.outs if Path(out).name == "metrics" and (root / out).is_dir()), None)
    if folder is None:
        return
    from dd.evaluation.figures import curves_figure, read_curves  # matplotlib: only where there is something to draw

    found = read_curves(folder.parent)
    if found:
        image = io.BytesIO()
        curves_figure(found).savefig(image, format="png", dpi=100)
        _image(image.getvalue(), "image/png", key_of(stage.experiment or stage.group, "curves"), f"`{stage.name}`")


def _image(data: bytes, media: str, key: str, text: str) -> None:
    """A picture as part of the artifact itself: it stays what this run has made, and needs no server of files.

    As markdown, because the page of an image artifact prints the whole address of its picture.
    """
    url = f"data:{media};base64,{base64.b64encode(data).decode()}"
    _try(artifacts.create_markdown_artifact, f"![{key}]({url})\n\n{text}", key=key, description=text)


def results(root: Path, stages: Iterable[Stage]) -> None:
    """The rows of all experiments of the run as one table; a value that was not measured stays empty."""
    table = result_rows(root, stages)
    if table:
        _try(artifacts.create_table_artifact, table, key="results", description="Results, one row per sampler")


def sweep(experiment: str, table: list[dict[str, Any]]) -> None:
    """The points of a sweep with their metrics."""
    if table:
        columns = list(dict.fromkeys(column for row in table for column in row))
        cells = [{column: _cell(row.get(column)) for column in columns} for row in table]
        text = f"Sweep of {experiment}; the same in `dvc exp show`"
        _try(artifacts.create_table_artifact, cells, key=key_of("sweep", experiment), description=text)


def provenance(table: list[dict[str, str]]) -> None:
    """See provenance.py."""
    _try(artifacts.create_table_artifact, table, key="provenance", description="What this run was made from")


def report(root: Path, stages: Iterable[Stage]) -> None:
    """A link to each HTML page among the outputs, or its path where no server shows files."""
    for stage in stages:
        for path in _outputs(root, stage, (".html",)):
            key, text = key_of(path.stem), f"`{path.relative_to(root)}`"
            base = os.environ.get("DD_FILES_URL")
            if base and path.is_relative_to(root / SHOWN):
                link = f"{base}/{path.relative_to(root / SHOWN).as_posix()}"
                _try(
                    lambda k=key, t=text, u=link: artifacts.create_link_artifact(
                        u, "Open the report", key=k, description=t
                    )
                )
            else:
                _try(artifacts.create_markdown_artifact, f"Open {text} in a browser.", key=key)


def pictures(root: Path, stage: Stage) -> list[Path]:
    """PNG and JPEG files among the outputs, and SVG ones that have no such twin."""
    found = _outputs(root, stage, tuple(_MEDIA))
    solid = {path.with_suffix("") for path in found if path.suffix != ".svg"}
    return [path for path in found if path.suffix != ".svg" or path.with_suffix("") not in solid]


def result_rows(root: Path, stages: Iterable[Stage]) -> list[dict[str, Any]]:
    """Every rows.json among the outputs under the titles of the report's table, each sampler by its label."""
    rows: list[dict[str, Any]] = []
    for stage in stages:
        if stage.experiment is None:
            continue  # the report repeats the rows of the experiments
        for path in _outputs(root, stage, (".json",)):
            if path.name == "rows.json":
                rows += _rows(path)
    from dd.report.columns import ALL  # titles and formats of the report's own table

    used = [column for column in ALL if any(row.get(column.key) is not None for row in rows)]
    table = []
    for row in rows:
        cells = {"experiment": row.get("experiment", ""), "metric": row.get("metric", "")}
        table.append(cells | {column.title: _shown(row, column) for column in used})
    return table


def _shown(row: dict[str, Any], column: Any) -> str:
    """A cell as the report writes it, its standard error behind it."""
    value, error = row.get(column.key), row.get(f"{column.key}_error")
    if value is None:
        return ""
    return str(column.show(value)) + (f" ±{error:.2g}" if error else "")


def key_of(*parts: str) -> str:
    """An artifact key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def _outputs(root: Path, stage: Stage, suffixes: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for out in stage.outs:
        path = root / out
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [file for file in files if file.suffix in suffixes and file.is_file()]
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return [row for row in rows if isinstance(row, dict)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("no results from %s: %s", path, error)
        return []


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _try(make: Callable[..., Any], *values: Any, **named: Any) -> Any:
    if time.monotonic() < _quiet_until[0]:
        return None
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):  # a stage does not wait for its pictures
            return make(*values, **named)
    except Exception as error:  # whatever Prefect raises: the run goes on
        _quiet_until[0] = time.monotonic() + PAUSE
        logger.warning("artifact not shown: %s", " ".join(str(error).split()) or type(error).__name__)
        return None
