"""The map's evaluation as fused kernels for accelerators: attention of y over the codes, with a bias.

`dd.flow.solver.Pool.derive` holds their reference, and what is used where they are not: on CPUs, without Triton, with
codes wider than a tile, or where they are slower. The kernels never write the weights (N, V), which are all that the
plain version spends its time on. The codebook is cut into spans of `SPAN` codes; each has a running maximum, sum and
mean of its own, and a second reduction joins them. How many spans one program walks is measured once for each size
(`group_for`): it changes the speed and no bit of the result, so runs agree whatever was measured.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger(__name__)

WIDEST = 128
TOKENS, CODES = 32, 64  # of one tile
SPAN = 1024
# The plain version rounds otherwise, so only a clear advantage counts: runs on one kind of card choose alike.
CLEARLY = 2.0


def usable(x: Tensor, codes: int = 0) -> bool:
    """Whether the kernels run on this tensor's device for vectors of its width (N, C), and pay for so many codes.

    codes 0: it is only asked whether they run.
    """
    if x.shape[-1] + 1 > WIDEST or (x.device.type != "cuda" and not _interpreted()):
        return False
    return _works(x.device) and (not codes or _pays(x.device, _bucket(len(x)), codes, x.shape[-1]))


def _interpreted() -> bool:
    """Triton's interpreter runs kernels on a CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _works(device: torch.device) -> bool:
    """One comparison with the plain version over two spans, once per process: kernels that differ are left out."""
    try:
        left, log_probs, codes = _example(device, 5, SPAN + 70, 9)
        moments, light = posterior_mean(left, log_probs, codes, 0.01)
        weights = torch.addmm(log_probs, left, codes.T).softmax(-1)
        good = torch.allclose(moments, weights @ codes, atol=1e-4, rtol=1e-4)
        good = good and light is not None and torch.allclose(light, weights.clamp(max=0.01).sum(-1), atol=1e-4)
    except Exception as error:  # compilers fail in many ways, and none of them may stop the map
        log.warning("the fused kernels do not run here, the plain version does: %s", error)
        return False
    if not good:
        log.warning("the fused kernels disagree with the plain version here, which is used instead")
    return good


@cache
def _pays(device: torch.device, tokens: int, codes: int, width: int) -> bool:
    """Whether the kernels are not clearly slower than the plain version at this size; measured once per process."""
    if device.type != "cuda":
        return True
    left, log_probs, vectors = _example(device, tokens, codes, width)
    fused = seconds(device, lambda: posterior_mean(left, log_probs, vectors))
    plain = seconds(device, lambda: torch.addmm(log_probs, left, vectors.T).softmax(-1) @ vectors)
    log.debug("map of %d tokens, %d codes: fused %.1f us, plain %.1f us", tokens, codes, 1e6 * fused, 1e6 * plain)
    return fused < CLEARLY * plain


def _bucket(count: int) -> int:
    """The power of two that stands for all smaller numbers of tokens, at most 4096: they share what was measured."""
    return min(4096, max(TOKENS, 1 << (count - 1).bit_length()))


def _example(device: torch.device, tokens: int, codes: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (tokens, width), (tokens, codes), (codes, width)
    left, log_probs, vectors = (torch.randn(*shape, generator=generator).to(device) for shape in shapes)
    return left, log_probs, vectors


def seconds(device: torch.device, work: Callable[[], object], repeats: int = 5) -> float:
    """The shortest of a few runs, after one that compiles."""
    found = []
    for _ in range(1 + repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return min(found[1:])


# ---------------------------------------------------------------------------------------------------------- the kernels

_groups: dict[tuple[torch.device, int, int, int], int] = {}


def group_for(left: Tensor, log_probs: Tensor, codes: Tensor) -> int:
    """How many spans one program walks: the fastest of 1, 2, 4, .. at this size, measured at its first use.

    Not while a CUDA graph is captured, where nothing can be measured: then one, the most programs.
    """
    spans = -(-len(codes) // SPAN)
    if spans == 1 or left.device.type != "cuda":
        return 1
    key = left.device, _bucket(len(left)), len(codes), left.shape[1]
    if key not in _groups and torch.cuda.is_current_stream_capturing():
        return 1
    if key not in _groups:
        choices = [1 << n for n in range(spans.bit_length())]
        every = torch.ones(len(left), dtype=torch.int8, device=left.device)
        _groups[key] = fastest(left.device, choices, lambda group: _sums(left, log_probs, codes, every, group))
    return _groups[key]


def fastest(device: torch.device, choices: list[int], work: Callable[[int], object]) -> int:
    """The choice whose work takes the least time."""
    return min(choices, key=lambda choice: seconds(device, lambda: work(choice)))


def posterior_mean(
    left: Tensor, log_probs: Tensor, codes: Tensor, threshold: float | None = None, active: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """w = softmax(log_probs + left codes^T) as its mean w codes (N, D), and sum of min(w, threshold) (N,) if given.

    left (N, D), log_probs (N, V), codes (V, D), all float32 on one device. active (N,): tokens of which it is asked;
    the others' results are undefined, and a tile without any costs nothing.
    """
    left, log_probs, codes = left.contiguous(), log_probs.contiguous(), codes.contiguous()
    mask = left.new_ones(len(left), dtype=torch.int8) if active is None else active.to(torch.int8)
    group = group_for(left, log_probs, codes)
    moments, peak, whole = _sums(left, log_probs, codes, mask, group)
    if threshold is None:
        return moments, None
    return moments, _light(left, log_probs, codes, mask, peak, whole, threshold, group)


def _sums(left: Tensor, log_probs: Tensor, codes: Tensor, active: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Means (N, D), and what the weights are made of: the largest logit (N,) and the sum of exponentials (N,)."""
    import triton

    from dd.flow.kernel_triton import join_sums, partial_sums

    (count, width), size = left.shape, len(codes)
    spans, tiles, padded = -(-size // SPAN), triton.cdiv(count, TOKENS), _padded(width)
    top, total, sums = left.new_empty(spans, count), left.new_empty(spans, count), left.new_empty(spans, count, width)
    partial_sums[(tiles, triton.cdiv(spans, group))](
        *(left, log_probs, codes, active, top, total, sums, count, size, spans, group),
        *(SPAN, width, padded, TOKENS, CODES),
    )
    moments, peak, whole = torch.empty_like(left), left.new_empty(count), left.new_empty(count)
    join_sums[(tiles,)](top, total, sums, active, moments, peak, whole, count, spans, width, padded, TOKENS)
    return moments, peak, whole


def _light(
    left: Tensor,
    log_probs: Tensor,
    codes: Tensor,
    active: Tensor,
    peak: Tensor,
    whole: Tensor,
    threshold: float,
    group: int,
) -> Tensor:
    import triton

    from dd.flow.kernel_triton import partial_light

    (count, width), size = left.shape, len(codes)
    spans = -(-size // SPAN)
    parts = left.new_empty(spans, count)
    partial_light[(triton.cdiv(count, TOKENS), triton.cdiv(spans, group))](
        *(left, log_probs, codes, active, peak, whole, parts, count, size, spans, group, threshold),
        *(SPAN, width, _padded(width), TOKENS, CODES),
    )
    return parts.sum(0)


def _padded(width: int) -> int:
    """Columns of a tile: products need sixteen, and a power of two."""
    return max(16, 1 << (width - 1).bit_length())
