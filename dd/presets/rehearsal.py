"""A rehearsal of a preset: the same stages and the same widths, two random blocks, a handful of pairs and images.

It shows on any machine, before the first hour of the real run, that every stage finds what it needs and passes on what
the next one reads. Its numbers mean nothing.
"""

from __future__ import annotations

import copy
from typing import Any

from dd.config import DistillConfig
from dd.metrics.protocols import protocol

LEFT_OUT = ("global_batch", "probe", "source", "initialise")
BLOCKS, PAIRS, STEPS, IMAGES = 2, 64, 2, 2
# Janus takes 576 steps at the width of a language model: 64 pairs would take half an hour.
FEWER_PAIRS = {"janus": 16}
# Captions of a text-to-image preset, where the user's own are not there yet.
CAPTIONS = {"train": "captions/scenes-train.parquet", "test": "captions/scenes-test.parquet"}


def rehearsal(experiment: dict[str, Any]) -> dict[str, Any]:
    """The experiment (as in params.yaml) cut down. Metric networks and references that are not there are left out."""
    cut = copy.deepcopy(experiment) | {"device": "auto"}
    cut["teacher"]["random_blocks"] = BLOCKS
    if "captions" in cut["teacher"]:
        cut["teacher"]["captions"] = dict(CAPTIONS)
    if cut.get("trajectories"):
        pairs = FEWER_PAIRS.get(cut["family"], PAIRS)
        cut["trajectories"] |= {"pairs": pairs, "held_out": 4, "shard_size": pairs // 2, "batch": pairs // 2}
        cut["trajectories"].pop("solver", None)  # a finer map takes several times as long
    if cut.get("distill"):
        cut["distill"] = _distill(cut["distill"])
    evaluate = cut["evaluate"]
    network = protocol(evaluate.get("protocol", "fd-fashion")).extractor
    evaluate |= {"images": IMAGES, "batch": IMAGES, "allow_missing": [network, "reference"]}
    return cut


def _distill(settings: dict[str, Any]) -> dict[str, Any]:
    small = {"steps": STEPS, "batch": 2, "warmup": 1, "log_every": 1, "evaluate_every": STEPS, "checkpoint_every": 1}
    cut = {key: value for key, value in settings.items() if key not in LEFT_OUT} | small
    full = DistillConfig.model_validate(settings)
    for rate in ("lr", "muon_lr"):  # as in the first steps of the real warm-up: a wide network bears no more
        cut[rate] = getattr(full, rate) / max(1, full.warmup)
    losses = settings.get("losses", {})
    if "soft" in losses:  # what it learns from is a released student of another depth
        cut["losses"] = {**losses, "soft": 0.0, "cross_entropy": 1.0}
    cut["baseline"] = {**settings.get("baseline", {}), "steps": 1}
    if settings.get("second", {}).get("steps"):
        cut["second"] = {**settings["second"], "steps": STEPS, "warmup": 1}
    return cut
