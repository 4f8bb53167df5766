"""From a stream of images to a row of metrics.

evaluation = open_evaluation(protocol("fd-fashion"), images=10_000, out=Path("results/mine"))   # fails first
measured = evaluation.measure(batches)          # draws, extracts and sums at the same time
measured.row()                                  # {"metric": "FD-fashion", "value": 6.2, "value_error": .05, ...}
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Container, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dd.errors import DDError
from dd.evaluation.share import Share
from dd.evaluation.sums import Measured, Part, Sums
from dd.metrics.extractors import open_extractor
from dd.metrics.features import Extractor, MissingWeights
from dd.metrics.images import RgbBatches, write_pngs
from dd.metrics.protocols import Protocol
from dd.metrics.references import Reference, load_reference
from dd.sampling.image_sampler import Batch
from dd.system.machine import one_thread

log = logging.getLogger(__name__)
Read = Callable[[Tensor, int], Tensor]  # images (B, C, H, W) and the number of the first, to (B,) bool
IN_FLIGHT = 2  # batches that may wait for the extractor


@dataclass(frozen=True)
class Evaluation:
    """An opened protocol. missing: why the extractor is not there (then `measure` measures nothing)."""

    protocol: Protocol
    images: int
    extractor: Extractor | None
    reference: Reference | None
    missing: str | None = None

    def measure(
        self,
        batches: Iterable[Batch],
        partner: Measured | None = None,
        pngs: Path | None = None,
        seed: int = 0,
        read: Read | None = None,
        share: Share | None = None,
    ) -> Measured:
        """Metrics of exactly `self.images` images.

        batches: (images, classes); classes must come mixed, not sorted. partner: the teacher's images of the same
        noise and classes, for the paired distance. pngs: a folder that keeps the images. seed: of the KID's subsets.
        read: which images (B, ...) from a number on are as their caption says. share: this process's part where several
        measure together; `batches` are then its own ones, and only the main process has metrics.
        """
        name = self.protocol.metric_name(self.images)
        if self.extractor is None or self.reference is None:
            return Measured(name, self.images, missing={key: str(self.missing) for key in Measured.METRICS})
        work = _Features(self.extractor, self.images, pngs, read)
        sums = Sums(self.images, self.protocol, self.extractor, self.reference)
        if share is not None and share.world > 1:
            share.gather_parts(work, batches, self.images, sums.take)
            if share.rank:
                return Measured(name, self.images)
        else:
            with _Beside(self.extractor.device) as beside:
                first = 0
                for images, classes in batches:
                    beside.do(lambda *some: sums.take(work(*some)), images[: self.images - first], classes, first)
                    first += len(images)
                    if first >= self.images:
                        break
        return sums.finish(name, partner, seed, work.rgb.notes)


def open_evaluation(
    protocol: Protocol,
    images: int,
    out: Path,
    *,
    extractor: Extractor | str | Path | None = None,
    reference: str | Path | None = None,
    keep_images: bool = False,
    device: str | torch.device = "cpu",
    allow_missing: Container[str] = (),
) -> Evaluation:
    """Open everything that an evaluation needs, before the first image is drawn.

    Raises DDError for a bad reference, too few images, too little disk space or an unwritable folder, and for a metric
    network or a reference that is not on this machine, unless `allow_missing` names it (the protocol's extractor;
    "reference"): then the metrics they would give are reported as missing.
    """
    if images < 2:
        raise DDError(f"expected at least 2 images, got {images}: a distance needs a sample")
    side = protocol.image_size or 32
    check_folder(out, images * side * side * 3 if keep_images else 0)
    try:
        if not isinstance(extractor, Extractor):
            extractor = open_extractor(protocol.extractor, protocol.extractor_path(extractor), device)
    except MissingWeights as error:
        return _without(protocol, images, protocol.extractor, error, allow_missing)
    path = protocol.reference_path(reference)
    if not path.is_file() and "reference" in allow_missing:
        reason = DDError(f"no reference for protocol {protocol.name} at {path}: {protocol.how_to_get}")
        return _without(protocol, images, "reference", reason, allow_missing)
    return Evaluation(protocol, images, extractor, load_reference(path, protocol, extractor))


def _without(protocol: Protocol, images: int, name: str, why: DDError, allowed: Container[str]) -> Evaluation:
    """An evaluation that measures nothing, where that was allowed by name. Raises DDError otherwise."""
    if name not in allowed:
        raise DDError(
            f"{protocol.metric_name(images)} cannot be measured: {why}; to go on without it: "
            f"evaluate.allow_missing: [{name}]"
        )
    log.warning("%s cannot be measured: %s", protocol.metric_name(images), why)
    return Evaluation(protocol, images, None, None, str(why))


def check_folder(out: Path, needed: int = 0) -> None:
    """Raise DDError unless the folder can be written and has room for `needed` bytes, and a little more."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):  # a name of its own: all processes of a run look here
            pass
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise DDError(f"cannot write to {out} ({error.strerror}): make it writable or choose another folder") from error
    needed += 16 << 20
    if free < needed:
        raise DDError(
            f"expected {needed >> 20} MiB of free space for {out}, got {free >> 20} MiB: free some, or keep no images"
        )


class _Beside:
    """Calls that run beside the caller's own work, in order, at most IN_FLIGHT late; their errors come out later.

    With an accelerator that is a thread, which scales pictures while the device draws the next ones. On a CPU the call
    runs at once: two kinds of work at a time get in each other's way there (94 s against 114 s on two cores).
    """

    def __init__(self, device: torch.device) -> None:
        self.pool = None if device.type == "cpu" else ThreadPoolExecutor(1, "extractor", initializer=one_thread)
        self.waiting: deque[Future[None]] = deque()

    def __enter__(self) -> _Beside:
        return self

    def do(self, work: Callable[..., None], *arguments: Any) -> None:
        if self.pool is None:
            work(*arguments)
            return
        self.waiting.append(self.pool.submit(work, *arguments))
        while len(self.waiting) > IN_FLIGHT or (self.waiting and self.waiting[0].done()):
            self.waiting.popleft().result()

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if self.pool is None:
            return
        self.pool.shutdown(cancel_futures=failed is not None)
        if failed is None:
            for future in self.waiting:
                future.result()


class _Features:
    """From images to what is summed: uint8 RGB, features, which are as their caption says; PNGs on the way."""

    def __init__(self, extractor: Extractor, count: int, pngs: Path | None, read: Read | None) -> None:
        self.extractor, self.count, self.pngs, self.read = extractor, count, pngs, read
        self.rgb = RgbBatches(extractor.image_size)

    def __call__(self, images: Tensor, classes: Tensor | None, first: int) -> Part:
        """Images first, first + 1, ... of the stream; those beyond its count are dropped."""
        right = None if self.read is None else self.read(images, first)
        images = self.rgb(images[: self.count - first])
        found = self.extractor(images)
        if self.pngs:
            write_pngs(self.pngs, images.cpu(), first)
        kept = None if classes is None else classes[: len(images)].cpu()
        return Part(found, kept, None if right is None else right[: len(images)])
