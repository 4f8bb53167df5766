"""Rows and files of an imagined experiment, for the tests of the report."""

import json
from pathlib import Path

import torch

from dd.evaluation.figures import Tiles, curves_figure, quality_figure, sample_grid, save_figure, write_tiles
from dd.evaluation.rows import Row, fill_ratios, make_row, numbers

# sampler, label, evaluations, value, its error, precision, seconds per image, parameters
SAMPLERS = (
    ("real", "real", None, 0.18, 0.01, 0.9, None, None),
    ("reconstruction", "reconstruction", None, 1.93, 0.03, 0.85, None, None),
    ("teacher", "teacher", 64, 2.86, 0.05, 0.84, 0.105, 1_600_000),
    ("dd", "dd 0", 1, 5.4, 0.08, 0.83, 0.0027, 1_650_000),
    ("dd", "dd 0,16", 2, 4.61, 0.07, 0.82, 0.0051, 1_650_000),
    ("dd+teacher", "dd+teacher 0,16 from 8", 10, 3.6, 0.06, 0.8, 0.02, 1_650_000),
    ("skip", "skip-8", 57, 9.5, 0.1, 0.7, 0.09, 1_500_000),
    ("onestep*", "onestep*", 1, 23.3, 0.2, 0.4, 0.0026, 1_500_000),
)


def imagined_rows(experiment: str = "llamagen-toy", scale: float = 1.0) -> list[Row]:
    """Rows with every kind of sampler; the onestep* row lacks its kernel distance."""
    rows = []
    for sampler, label, steps, value, error, precision, seconds, parameters in SAMPLERS:
        lacking = {"kid": "imagined"} if sampler == "onestep*" else {}
        rows.append(
            make_row(
                block="measured",
                experiment=experiment,
                family=experiment.split("-")[0],
                teacher=experiment,
                sampler=sampler,
                label=label,
                evaluations=steps,
                metric="FD-toy",
                value=value * scale,
                value_error=error,
                kid=None if lacking else value / 1000,
                kid_error=None if lacking else 0.0002,
                inception_score=9 - value / 10,
                precision=precision,
                recall=0.5,
                diversity=0.9 - value / 50,
                images=10_000,
                seconds_per_image=seconds,
                parameters=parameters,
                protocol="fd-toy",
                seed=1,
                revision="0" * 40,
                teacher_sha256="a" * 64,
                student_sha256="b" * 64 if sampler.startswith("dd") else None,
                command=f"python -m stages.evaluate {experiment}",
                missing=lacking,
            )
        )
    return fill_ratios(rows)


def write_results(root: Path, rows: list[Row], drawn: bool = True) -> None:
    """results/<experiment>/ as stage evaluate writes it; not drawn: without the figures."""
    name = rows[0]["experiment"]
    folder = root / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.json").write_text(json.dumps({"rows": rows}))
    (folder / "metrics.json").write_text(json.dumps(numbers(rows)))
    if not drawn:
        return
    images = torch.randint(0, 255, (10, 3, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = [row["label"] for row in rows if row["evaluations"]]
    save_figure(sample_grid(dict.fromkeys(labels, images)), folder / "samples", ("png",))
    save_figure(quality_figure(rows), folder / "quality")
    curves = {
        f"{kind}/{name}": [(step, start / (1 + step / 500)) for step in range(0, 3000, 50)]
        for kind, name, start in (("loss", "cross_entropy", 5.5), ("held_out", "t0", 5.4), ("held_out", "t16", 5.0))
    }
    save_figure(curves_figure(curves), folder / "curves")


def rows(**more):
    common = {"experiment": "toy", "metric": "FD-toy", "protocol": "fd-toy", "images": 500, "block": "measured"}
    return [
        make_row(**common, sampler="teacher", label="teacher", value=1.0),
        make_row(**common, sampler="dd", label="dd 0", value=2.5, **more),
    ]


def tiled(root: Path) -> Path:
    """A project whose results hold tiles: 2 classes, 3 images of each, by every sampler that draws."""
    rows = imagined_rows()
    write_results(root, rows)
    write_results(root, [row | {"experiment": "other"} for row in rows], drawn=False)
    images = torch.randint(0, 255, (6, 3, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    tiles = Tiles.of(torch.arange(30) % 2, ("hat", "shoe"), each=3)
    labels = [row["label"] for row in rows if row["evaluations"]]
    write_tiles(dict.fromkeys(labels, images), tiles, root / "results" / "llamagen-toy")
    return root
