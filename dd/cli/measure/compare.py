"""`dd-cli compare`: two students on the same noise, and whether their difference is more than noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dd.errors import DDError

if TYPE_CHECKING:
    from dd.api import Model
    from dd.evaluation.paired import Comparison

MODEL = "An experiment, a student of 'dd-cli zoo list', an exported folder, or owner/name on the hub."


def compare(
    a: Annotated[str, typer.Argument(help=MODEL)],
    b: Annotated[str, typer.Argument(help="The other one.")],
    steps: Annotated[int, typer.Option(help="Evaluations per image of each student.", min=1)] = 1,
    steps_b: Annotated[int | None, typer.Option(help="For the second student, if different.", min=1)] = None,
    count: Annotated[int, typer.Option("--images-count", "-n", help="Images from each student.", min=100)] = 2_000,
    protocol: Annotated[
        str | None, typer.Option(help="adm, dd, clean or fd-<dataset>. [default: that of experiment A, or B]")
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="For text-to-image students: a .txt, .csv or .parquet file, used in turn.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.", min=100)] = 500,
    seed: Annotated[int, typer.Option(help="Seed of noise and resampling.", min=0)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Draw two students from the same noise and test the difference of their distances (paired bootstrap)."""
    import torch

    from dd.api import load
    from dd.config import project_root
    from dd.evaluation.measure import open_evaluation
    from dd.evaluation.paired import compare as paired
    from dd.metrics.protocols import protocol as named

    evaluation = open_evaluation(named(protocol or _protocol(a, b)), count, project_root() / "work" / "compare")
    models = load(a), load(b)
    classes = _check(*models)
    prompts = _prompts(models[0], captions, count)
    each = steps, steps_b or steps
    drawn = [
        model.sample(prompts=prompts, n=count, steps=number, seed=seed)
        for model, number in zip(models, each, strict=True)
    ]
    images = [torch.from_numpy(one).permute(0, 3, 1, 2) for one in drawn]
    labels = torch.arange(count) % classes if classes else None
    found = paired(evaluation, images[0], images[1], labels, resamples, seed)
    names = [f"{name}, {number} step{'s' * (number > 1)}" for name, number in zip((a, b), each, strict=True)]
    typer.echo(json.dumps({"names": names, **found.record()}, indent=1) if as_json else "\n".join(lines(names, found)))


def _protocol(a: str, b: str) -> str:
    """The protocol of the first name that is an experiment."""
    from dd.config import load_params

    known = load_params().experiments
    for name in (a, b):
        if name in known:
            return known[name].evaluate.protocol
    raise DDError(f"compare: neither {a} nor {b} is an experiment of params.yaml: say --protocol")


def _check(a: Model, b: Model) -> int:
    """The number of classes that two models share. Raises DDError where there is nothing to pair."""
    if (a.text_encoder is None) != (b.text_encoder is None):
        raise DDError(f"compare: one of {a.name} and {b.name} draws from prompts, the other from classes")
    if a.classes != b.classes:
        raise DDError(
            f"compare: expected models of the same classes, got {len(a.classes)} and {len(b.classes)}: "
            f"{b.name} has others"
        )
    shapes = [(model.teacher.groups.length, model.teacher.codebook.shape[1]) for model in (a, b)]
    if shapes[0] != shapes[1]:
        raise DDError(
            f"compare: expected noise of one shape (tokens, code width), got {shapes[0]} and {shapes[1]}: compare "
            "students of one tokenizer"
        )
    return len(a.classes)


def _prompts(model: Model, captions: Path | None, count: int) -> list[str] | None:
    """The first captions of a file, for models that draw from prompts."""
    if (model.text_encoder is None) == (captions is not None):
        need = "say --captions FILE" if captions is None else "leave --captions out"
        raise DDError(f"compare: {model.name} draws from {'classes' if captions else 'prompts'}: {need}")
    if captions is None:
        return None
    from itertools import islice

    from dd.text.captions import iterate_captions

    return list(islice(iterate_captions(captions), count))


def lines(names: list[str], found: Comparison) -> list[str]:
    """Both distances, the difference, and what it means."""
    word = "lower" if found.difference < 0 else "higher"
    verdict = f"{names[1]} is {word}: more than noise" if found.significant else "no more than noise"
    text = [f"{value:8.4f}  {name}" for name, value in zip(names, (found.a, found.b), strict=True)]
    interval = f"95 % {found.low:+.4f} to {found.high:+.4f}, p {found.p_value:.3f}"
    return [
        f"{found.metric}, lower is better; {found.images:,} images of the same noise, {found.resamples} resamples",
        *text,
        f"{found.difference:+8.4f}  difference, standard error {found.error:.4f}, {interval}",
        verdict,
    ]
