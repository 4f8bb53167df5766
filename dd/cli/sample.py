"""`dd-cli sample`: draw images of an experiment."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dd.errors import DDError

if TYPE_CHECKING:
    from dd.api import Steps


def sample(
    experiment: Annotated[
        str,
        typer.Argument(
            help="An experiment, a student of 'dd-cli zoo list', an exported folder, or owner/name on the hub."
        ),
    ],
    steps: Annotated[
        str, typer.Option(help="Student evaluations (1, 2), the groups they start from (0,16), or 'teacher'.")
    ] = "1",
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Class name or index; repeat for several. [default: all]")
    ] = None,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="Caption for a text-to-image model; repeat for several.")
    ] = None,
    n: Annotated[
        int | None, typer.Option(help="Number of images. [default: 10, or one per class if more; one per prompt]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Image i depends only on (seed, i) and its class.", min=0)] = 0,
    noise_scale: Annotated[
        float, typer.Option(help="Standard deviation of the student's noise: above 1 for more diversity.")
    ] = 1.0,
    out: Annotated[Path, typer.Option(help="The PNG file with the grid of images.")] = Path("grid.png"),
    columns: Annotated[int, typer.Option(help="Images in a row.", min=1)] = 10,
) -> None:
    """Draw images with the one- or two-step student, or with its teacher."""
    wanted = parse_steps(steps)
    if n is not None and n < 1:
        raise DDError(f"--n: expected at least 1 image, got {n}")
    if not 0 < noise_scale < math.inf:
        raise DDError(f"--noise-scale: expected a number above 0, got {noise_scale:g}")
    if out.suffix.lower() != ".png":
        raise DDError(f"--out: expected a name that ends in .png, got {out.name}")
    from dd.api import load, save_grid

    model = load(experiment)
    names = prompts or ([] if model.text_encoder else model.class_names(classes))
    started = time.perf_counter()
    count = n or (len(names) if prompts else max(10, len(names)))
    images = model.sample(classes, prompts=prompts, n=count, steps=wanted, seed=seed, noise_scale=noise_scale)
    seconds = time.perf_counter() - started
    titles = [prompts[i % len(prompts)] for i in range(count)] if prompts else None
    save_grid(images, out, columns, titles=titles)
    drawn = names[:count]
    shown = ", ".join(drawn[:10]) + (", ..." if len(drawn) > 10 else "")
    typer.echo(f"wrote {out}: {len(images)} images ({shown}) in {seconds:.2f} s")


def parse_steps(text: str) -> Steps:
    """`2`, `0,16` or `teacher`. Raises DDError."""
    if text == "teacher":
        return "teacher"
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise DDError(f"--steps: expected a number, groups such as 0,16, or 'teacher', got '{text}'") from None
    return numbers if "," in text else numbers[0]
