"""From a look at a folder to the entries of both params.yaml, with the time of each stage on this machine."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import yaml

from dd.config import Experiment, validate
from dd.datasets.folder import Survey, checked, held_out, same_classes
from dd.errors import DDError
from zoo.own.speed import Costs, measure
from zoo.settings import Zoo

TEMPLATES = Path(__file__).parent
SIZES = (16, 32, 64, 128)
LEAST, MANY = 1000, 5000  # images: below, little can be expected; from there on, larger networks
# Share of the minutes that a stage may take, and the fewest and most steps that make sense.
SHARES = {"extractor": 0.10, "tokenizer": 0.24, "teacher": 0.24, "distill": 0.24}
BOUNDS = {"extractor": (150, 1500), "tokenizer": (400, 5000), "teacher": (400, 10_000), "distill": (200, 800)}
REST = {"trajectories": 0.08, "evaluate": 0.06}
RESERVED = {"code", "folders", "data", "work", "own", "shipped", "scenes", "con", "nul", "aux", "prn", "adm", "dd"}
NAME = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")


@dataclass(frozen=True)
class Plan:
    """What is to be written and run. values: of the templates; seconds: of each stage, on this machine."""

    name: str
    values: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)

    def zoo_blocks(self) -> dict[str, dict[str, str]]:
        """Group of zoo/params.yaml to the text of each of its new entries, by name."""
        text = _render("zoo.yaml.j2", self.values)
        return {group: _entries(text, group) for group in yaml.safe_load(text)}

    def experiment_block(self) -> str:
        """The experiment, for params.yaml."""
        return _render("experiment.yaml.j2", self.values)

    def zoo(self) -> Zoo:
        """The entries, checked."""
        return Zoo.model_validate(yaml.safe_load(_render("zoo.yaml.j2", self.values)))

    def experiment(self) -> Experiment:
        """The experiment, checked."""
        return validate({"experiments": yaml.safe_load(self.experiment_block())}).experiments[self.name]

    def lines(self) -> list[str]:
        """The plan in words."""
        v, steps = self.values, self.values["steps"]
        what = "captions" if v["captioned"] else f"{v['classes']} classes"
        kind = "colour" if v["colour"] else "grey"
        square = "cut to squares" if v["crop"] else "padded with the colour of their edge"
        doing = {
            "extractor": f"two classifiers of {steps['extractor']} steps",
            "tokenizer": f"{v['codes']} codes, 64 tokens an image, {steps['tokenizer']} steps of {v['batch']}",
            "teacher": f"{v['layers']} layers of {32 * v['heads']}, {steps['teacher']} steps of {v['batch']}",
            "trajectories": f"{v['pairs']} pairs",
            "distill": f"{steps['distill']} + {steps['distill'] // 3} steps of 32",
            "evaluate": f"{v['images']} images for each row",
        }
        total = sum(self.seconds.values())
        return [
            f"{self.name}: {v['train']} training and {v['test']} test images, {what}, {kind}, {square}, "
            f"{v['size']} x {v['size']} pixels; licence: {v['licence']}",
            *(f"  {stage:<13} {self.seconds.get(stage, 0) / 60:5.1f} min  {words}" for stage, words in doing.items()),
            f"  {'together':<13} {total / 60:5.1f} min  on this machine, if nothing else keeps it busy",
            *self._longer(total / 60),
        ]

    def _longer(self, minutes: float) -> list[str]:
        """A line where the fewest steps that make sense need more time than was asked for."""
        wanted = self.values["minutes"]
        if minutes < 1.1 * wanted:
            return []
        return [f"longer than the {wanted:g} minutes asked for: fewer steps would leave networks untrained"]


def check_name(name: str) -> None:
    """Raise DDError for a name that files, DVC and protocols cannot all bear."""
    if not NAME.fullmatch(name) or name in RESERVED or len(name) > 60:
        raise DDError(
            f"name: expected lower-case letters, digits, '-' and '_' (and none of {', '.join(sorted(RESERVED))}), "
            f"got '{name}'"
        )


def make_plan(
    name: str, folder: Path, test_folder: Path | None, size: int, minutes: float, licence: str, probe: bool = True
) -> tuple[Plan, Survey]:
    """Look at the folder, measure this machine, choose sizes and lengths. Raises DDError for a folder without use."""
    if size not in SIZES:
        raise DDError(f"--size: expected one of {', '.join(map(str, SIZES))}, got {size}")
    if not minutes > 0 or not math.isfinite(minutes):
        raise DDError(f"--minutes: expected a number above 0, got {minutes:g}")
    check_name(name)
    found = checked(folder)
    train, test = _split(found, test_folder)
    values = _values(name, found, train, test, size) | {
        "folder": str(folder.expanduser().resolve()),
        "test_folder": str(test_folder.expanduser().resolve()) if test_folder else None,
        "licence": licence,
        "minutes": minutes,
    }
    plan = Plan(name, values)
    if train["images"] < 16:
        raise DDError(f"{train['images']} training images in {folder}: expected at least 16; bring more")
    return (_timed(plan, measure(plan.zoo()), minutes) if probe else plan), found


def _split(found: Survey, test_folder: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """How many images there are for training and for testing, and of each class for training."""
    if test_folder is not None:
        other = checked(test_folder)
        same_classes(found, other)
        known = {other.digests[file.name] for file in other.read}
        files, test = [f for f in found.read if found.digests[f.name] not in known], len(other.read)
        share = 0.1
    else:
        if problem := found.nothing_to_hold_out():
            raise DDError(problem)
        share = 0.1 if len(found.read) >= 2 * MANY else 0.2
        apart = held_out(found.read, found.digests, share)
        files, test = [f for f in found.read if f.name not in apart], len(apart)
    counts = Counter(file.label for file in files)
    return {"images": len(files), "counts": list(counts.values())}, {"images": test, "share": share}


def _values(name: str, found: Survey, train: dict[str, Any], test: dict[str, Any], size: int) -> dict[str, Any]:
    images, classes = train["images"], len(found.listing.classes)
    large = images >= MANY
    balanced = min(train["counts"]) * len(train["counts"])
    wide = 64 if test["images"] >= 128 else 32
    return {
        "name": name,
        "size": size,
        "train": images,
        "test": test["images"],
        "test_share": test["share"],
        "classes": classes,
        "captioned": found.listing.captioned,
        "colour": found.colour,
        "crop": found.plain_border < len(found.read) / 2,
        "target": "labels" if classes > 1 else "rotations",
        "channels": [32, 64, 128] if large and test["images"] >= 500 else [16, 32, wide],
        "codes": 32 if not found.colour else 256 if images < MANY else 512 if images < 20_000 else 1024,
        "ch_mult": [1, *[2] * (SIZES.index(size))],
        "layers": 6 if large else 4,
        "heads": 5 if large else 4,
        "views": 1 if images >= 4 * MANY else 4 if large else 8,
        "batch": max(2, min(32, images // 8)),
        "extractor_batch": max(2, min(64, images // 8)),
        "guidance": 1.5,
        "images": min(5000, balanced if balanced >= min(10_000, images) * 2 / 3 else images),
        "pairs": 8192,
        "steps": {stage: low for stage, (low, _) in BOUNDS.items()},
    }


def _timed(plan: Plan, costs: Costs, minutes: float) -> Plan:
    """Lengths that fit the minutes, and the time of each stage."""
    budget, a_step = 60 * minutes, costs.seconds
    steps = {
        stage: round(min(max(share * budget / a_step[stage], BOUNDS[stage][0]), BOUNDS[stage][1]))
        for stage, share in SHARES.items()
    }
    pairs = min(8192, max(1024, 512 * round(REST["trajectories"] * budget / a_step["draw"] / 512)))
    rows = 4 * plan.values["images"]  # teacher, one step, two steps and onestep*, about a teacher each
    images = plan.values["images"]
    if rows * a_step["draw"] > 2 * REST["evaluate"] * budget:
        images = max(200, int(images * 2 * REST["evaluate"] * budget / (rows * a_step["draw"])))
    values = plan.values | {"steps": steps, "pairs": pairs, "images": min(images, plan.values["images"])}
    seconds = {stage: count * a_step[stage] for stage, count in steps.items()} | {
        "trajectories": (pairs + 512) * a_step["draw"],
        "evaluate": 4 * values["images"] * a_step["draw"] + 30,
    }
    return replace(plan, values=values, seconds=seconds)


# ------------------------------------------------------------------------------------------------------------ templates


def _render(template: str, values: dict[str, Any]) -> str:
    source = (TEMPLATES / template).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.from_string(source).render(values).lstrip("\n")


def _entries(text: str, group: str) -> dict[str, str]:
    """Text of each entry of a group, its comments with it, without indent."""
    lines = text.splitlines(keepends=True)
    start = lines.index(f"{group}:\n") + 1
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith(" ")), len(lines))
    found: dict[str, str] = {}
    pending = ""
    for line in lines[start:end]:
        plain = line[2:]
        if plain.startswith("#"):
            pending += plain
        elif not plain.startswith(" "):
            name = plain.split(":")[0]
            found[name], pending = f"{plain}{_deeper(pending)}", ""
        else:
            found[name] += plain
    return found


def _deeper(comments: str) -> str:
    """Comments moved below the key, so that they go with it when it is removed."""
    return "".join(f"  {line}" for line in comments.splitlines(keepends=True))
