"""`dd-cli bench smoke`: does everything work on this device? All stages of cut-down presets, at full width, in minutes.

Two random blocks, a handful of pairs, steps and images (`dd.presets.rehearsal`); nothing is fetched. The map and the
decoder are compared with the CPU. Speeds are of two blocks and of small batches: beside a plan they show only what is
wrong by an order of magnitude.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

PRESETS = ("var-d16", "llamagen-l")


def smoke(
    presets: Annotated[list[str] | None, typer.Argument(help="Presets; default: var-d16 and llamagen-l.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    card: Annotated[str, typer.Option(help="GPU whose plan is shown beside the measurements.")] = "h100",
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Run every stage of cut-down presets on this device and compare with the CPU."""
    from dd.bench.operations import operations
    from dd.system.device import choose_device

    place = choose_device(device, "bench smoke")  # type: ignore[arg-type]
    found: dict[str, Any] = {"device": place, "operations": [vars(one) for one in operations(place)], "presets": {}}
    for preset in presets or PRESETS:
        found["presets"][preset] = rehearse(preset, place, card)
    if json:
        import json as json_module

        typer.echo(json_module.dumps(found, indent=1))
    else:
        _print(found)
    raise typer.Exit(1 if any(one["problem"] for one in found["operations"]) else 0)


def rehearse(preset: str, device: str, card: str) -> dict[str, Any]:
    """All stages of a preset's rehearsal in a project of its own: seconds and memory of each, and the comparison."""
    import torch

    from dd.bench.planned import planned
    from dd.config import load_experiment, project_root
    from dd.presets import add_experiment

    source = project_root()
    with _project(source) as root:
        (root / "params.yaml").write_text((source / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        name = add_experiment(root / "params.yaml", preset, rehearse=True)
        experiment = load_experiment(name)
        result: dict[str, Any] = {"stages": {}}
        for stage, work in _stages(name, root, experiment, device):
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            work()
            memory = torch.cuda.max_memory_allocated() if device == "cuda" else None
            result["stages"][stage] = {"seconds": time.perf_counter() - started, "memory_bytes": memory}
        result["agreement"] = agreement(root / "data" / name / "teacher", device)
        result["plan"] = planned(experiment, card)
    return result


def _stages(name: str, root: Path, experiment: Any, device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    from dd.checkpoints.teachers import materialise
    from dd.distillation import stage as distill
    from dd.evaluation import stage as evaluate
    from dd.trajectories import stage as trajectories

    chosen = experiment.teacher
    yield "teacher", lambda: materialise(chosen.name, root / "data" / name / "teacher", None, chosen.random_blocks)
    yield "trajectories", lambda: trajectories.main(name, trajectories.Engine(), device)
    yield "distill", lambda: distill.main(name)
    yield "evaluate", lambda: evaluate.main(name)


def agreement(teacher_dir: Path, device: str, images: int = 2) -> dict[str, float]:
    """The map's tokens and the decoder's images on the device against those of the CPU.

    tokens: share that is equal; one that flips changes all that follow. first: of the first group, which none precedes.
    pixels: the largest difference of images of the same codes, in [-1, 1].
    """
    import torch

    from dd.checkpoints.teachers import load_teacher_dir
    from dd.models.base import Filters
    from dd.trajectories.noise import noise
    from dd.trajectories.trajectory import trajectory

    found: list[Any] = []
    for place in ("cpu", device):
        teacher = load_teacher_dir(teacher_dir, place)
        e = noise(0, torch.arange(images), teacher.groups.length, teacher.codebook.shape[1])
        tokens = trajectory(teacher, torch.arange(images).to(place), e, Filters()).tokens.cpu()
        same = found[0][0] if found else tokens
        with torch.inference_mode():
            found.append((tokens, teacher.decode(teacher.codebook[same.to(place)]).cpu()))
    (tokens, pictures), (others, drawn) = found
    equal = (tokens == others).float()
    first = equal[:, : teacher.groups.sizes[0]].mean()
    return {"tokens": float(equal.mean()), "first": float(first), "pixels": float((pictures - drawn).abs().max())}


@contextmanager
def _project(source: Path) -> Iterator[Path]:
    """A scratch project that shares the zoo of `source`; $DD_ROOT names it meanwhile."""
    before = os.environ.get("DD_ROOT")
    with tempfile.TemporaryDirectory(prefix="dd-smoke-") as folder:
        (Path(folder) / "zoo").symlink_to(source / "zoo")
        os.environ["DD_ROOT"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["DD_ROOT"]
            if before is not None:
                os.environ["DD_ROOT"] = before


def _print(found: dict[str, Any]) -> None:
    for one in found["operations"]:
        typer.echo(f"{one['name']}: {one['found']}{'; ' + one['problem'] if one['problem'] else ''}")
    for preset, result in found["presets"].items():
        typer.echo(f"{preset}, two random blocks, on {found['device']}:")
        for stage, measured in result["stages"].items():
            memory = "" if measured["memory_bytes"] is None else f", {measured['memory_bytes'] / 1e9:.1f} GB"
            beside = result["plan"].get(stage)
            planned = "" if beside is None else f" (planned for its units: {beside:.1f} s)"
            typer.echo(f"  {stage}: {measured['seconds']:.1f} s{memory}{planned}")
        same = result["agreement"]
        typer.echo(
            f"  against the CPU: {same['tokens']:.1%} of tokens equal ({same['first']:.1%} of the first group), "
            f"pixels within {same['pixels']:.1e}"
        )
