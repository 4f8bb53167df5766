"""`python -m stages.distill EXPERIMENT --dry-run`: what a stage would make, from what, how long. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dd import config
from dd.checkpoints.teachers import read_info
from dd.config import Experiment
from dd.errors import DDError
from dd.presets.cost import stage_costs
from dd.presets.devices import card
from dd.presets.needs import missing
from dd.presets.rates import own_hours
from dd.trajectories.plan import finished
from dd.trajectories.stage import complete, make_plan

CARD = "h100"  # of the plan, where this machine has measured nothing itself
# What a stage reads and writes, below the project's folder.
INPUTS = {
    "teacher": (),
    "trajectories": ("data/{}/teacher",),
    "distill": ("data/{}/teacher", "data/{}/trajectories"),
    "evaluate": ("data/{}/teacher", "models/{}"),
}
OUTPUTS = {
    "teacher": "data/{}/teacher",
    "trajectories": "data/{}/trajectories",
    "distill": "models/{}",
    "evaluate": "results/{}",
}


@dataclass(frozen=True)
class DryRun:
    """lines: what is shown. lacking: what would stop the stage."""

    lines: list[str]
    lacking: list[str]


def dry_run(stage: str, name: str) -> DryRun:
    """What the stage would do in this project. Raises DDError for an unknown experiment."""
    root, experiment = config.project_root(), config.load_experiment(name)
    if stage not in OUTPUTS:
        return DryRun([f"{stage} {name}: seconds, no needs"], [])
    there = [(path.format(name), (root / path.format(name)).exists()) for path in INPUTS[stage]]
    lacking = [f"{path}: run the stage before it" for path, here in there if not here]
    lacking += [f"{need.what}: {need.how}" for need in missing(experiment, root)]
    target = OUTPUTS[stage].format(name)
    lines = [
        f"{stage} {name}: would write {target}{' (in place of what is there)' if (root / target).exists() else ''}",
        f"makes: {_made(stage, name, experiment, root)}",
        f"from: {', '.join(path for path, _ in there) or 'the zoo, or teacher.path'}",
        f"takes: {_time(stage, name, experiment, root)}",
        *(f"missing: {one}" for one in lacking),
    ]
    return DryRun(lines if lacking else [*lines, "nothing is missing"], lacking)


def _made(stage: str, name: str, experiment: Experiment, root: Path) -> str:
    if stage == "teacher":
        blocks = experiment.teacher.random_blocks
        return f"{experiment.teacher.name}{f', {blocks} random blocks' if blocks else ''} as safetensors"
    if stage == "evaluate":
        measure = experiment.evaluate
        return f"{len(measure.samplers)} rows of {measure.images:,} images each, protocol {measure.protocol}"
    if experiment.distill is None or experiment.trajectories is None:
        return (
            f"student {experiment.student} as released"
            if stage == "distill"
            else "an empty folder: nothing is distilled"
        )
    if stage == "distill":
        settings = experiment.distill
        baseline = f", then {settings.baseline.steps:,} of the baseline" if settings.baseline.steps else ""
        second = f", then {settings.second.steps:,} of the second phase" if settings.second.steps else ""
        return f"a student: {settings.steps:,} steps of {settings.pairs_per_update} pairs{second}{baseline}"
    pairs = experiment.trajectories
    return f"{pairs.pairs:,} pairs and {pairs.held_out:,} held out{_shards(name, experiment, root)}"


def _shards(name: str, experiment: Experiment, root: Path) -> str:
    """How many shards there are already."""
    folder = root / "data" / name / "teacher"
    try:
        info = read_info(folder)
        plan = make_plan(experiment, info, folder if experiment.condition == "text" else None)
    except DDError:
        return ""
    if complete(str(root / "data" / name / "trajectories"), plan):
        return ", all of which are there"
    work = root / "work" / plan.fingerprint / "shards"
    done = sum(finished(work, shard) is not None for shard in plan.shards)
    return f", {done} of {len(plan.shards)} shards done"


def _time(stage: str, name: str, experiment: Experiment, root: Path) -> str:
    if stage == "teacher":
        return "a minute, and what has to be fetched"
    own = own_hours(root, name, stage, experiment)
    if own is not None:
        return f"{_hours(own[0])} by the rate that this stage last had on {own[1]}"
    costs = {cost.stage: cost for cost in stage_costs(experiment, card(CARD))}
    if stage not in costs:
        return "a minute, and what has to be fetched"
    return f"{_hours(costs[stage].hours)} on one {card(CARD).title} by the plan (dd-cli plan {name} has its arithmetic)"


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{60 * hours:.1f} minutes" if hours >= 1 / 60 else "less than a minute"
