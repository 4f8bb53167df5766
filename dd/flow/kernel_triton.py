"""The Triton code of `dd.flow.kernel`, apart from it because it can only be imported where Triton is installed."""

import triton
import triton.language as tl


@triton.jit
def partial_sums(
    left_p,
    log_p,
    codes_p,
    active_p,
    top_p,
    total_p,
    sums_p,
    count,
    size,
    spans,
    group,
    span: tl.constexpr,
    width: tl.constexpr,
    padded: tl.constexpr,
    tokens: tl.constexpr,
    codes_n: tl.constexpr,
):
    """Of a tile of tokens over `group` spans of codes, one after the other: maximum, sum and weighted codes of each.

    Each span has sums of its own, so the numbers do not depend on `group`. Tiles without an active token do nothing.
    """
    row = (tl.program_id(0) * tokens + tl.arange(0, tokens)).to(tl.int64)
    column = tl.arange(0, padded)
    lane = tl.arange(0, codes_n)
    active = tl.load(active_p + row, mask=row < count, other=0) != 0
    some = tl.max(active.to(tl.int32), 0)
    tile = active[:, None] & (column[None, :] < width)
    left = tl.load(left_p + row[:, None] * width + column[None, :], mask=tile, other=0.0)
    begin = tl.program_id(1) * group
    end = tl.minimum(begin + group * some, spans)
    for part in range(begin, end):
        top = tl.full((tokens,), -3.0e38, tl.float32)
        total = tl.zeros((tokens,), tl.float32)
        sums = tl.zeros((tokens, padded), tl.float32)
        for offset in range(0, span, codes_n):
            code = part * span + offset + lane
            known = (code[:, None] < size) & (column[None, :] < width)
            codes = tl.load(codes_p + code[:, None] * width + column[None, :], mask=known, other=0.0)
            here = active[:, None] & (code[None, :] < size)
            prior = tl.load(log_p + row[:, None] * size + code[None, :], mask=here, other=-float("inf"))
            logits = prior + tl.dot(left, tl.trans(codes), input_precision="ieee")
            new = tl.maximum(top, tl.max(logits, 1))
            weights = tl.exp(logits - new[:, None])
            shrink = tl.exp(top - new)
            total = total * shrink + tl.sum(weights, 1)
            sums = sums * shrink[:, None] + tl.dot(weights, codes, input_precision="ieee")
            top = new
        place = part * count + row
        tl.store(top_p + place, top, mask=active)
        tl.store(total_p + place, total, mask=active)
        tl.store(sums_p + place[:, None] * width + column[None, :], sums, mask=tile)


@triton.jit
def join_sums(
    top_p,
    total_p,
    sums_p,
    active_p,
    moments_p,
    peak_p,
    whole_p,
    count,
    spans,
    width: tl.constexpr,
    padded: tl.constexpr,
    tokens: tl.constexpr,
):
    """The second reduction: means (moments), maxima (peak) and sums (whole) of a tile of tokens over all spans."""
    row = (tl.program_id(0) * tokens + tl.arange(0, tokens)).to(tl.int64)
    column = tl.arange(0, padded)
    active = tl.load(active_p + row, mask=row < count, other=0) != 0
    tile = active[:, None] & (column[None, :] < width)
    peak = tl.full((tokens,), -3.0e38, tl.float32)
    for part in range(spans):
        peak = tl.maximum(peak, tl.load(top_p + part * count + row, mask=active, other=-3.0e38))
    whole = tl.zeros((tokens,), tl.float32)
    sums = tl.zeros((tokens, padded), tl.float32)
    for part in range(spans):
        place = part * count + row
        share = tl.exp(tl.load(top_p + place, mask=active, other=-3.0e38) - peak)
        whole += share * tl.load(total_p + place, mask=active, other=1.0)
        sums += share[:, None] * tl.load(sums_p + place[:, None] * width + column[None, :], mask=tile, other=0.0)
    tl.store(moments_p + row[:, None] * width + column[None, :], sums / whole[:, None], mask=tile)
    tl.store(peak_p + row, peak, mask=active)
    tl.store(whole_p + row, whole, mask=active)


@triton.jit
def partial_light(
    left_p,
    log_p,
    codes_p,
    active_p,
    peak_p,
    whole_p,
    light_p,
    count,
    size,
    spans,
    group,
    threshold,
    span: tl.constexpr,
    width: tl.constexpr,
    padded: tl.constexpr,
    tokens: tl.constexpr,
    codes_n: tl.constexpr,
):
    """Sum of min(w, threshold) of a tile of tokens over each of `group` spans of codes."""
    row = (tl.program_id(0) * tokens + tl.arange(0, tokens)).to(tl.int64)
    column = tl.arange(0, padded)
    lane = tl.arange(0, codes_n)
    active = tl.load(active_p + row, mask=row < count, other=0) != 0
    some = tl.max(active.to(tl.int32), 0)
    left = tl.load(
        left_p + row[:, None] * width + column[None, :],
        mask=active[:, None] & (column[None, :] < width),
        other=0.0,
    )
    peak = tl.load(peak_p + row, mask=active, other=0.0)
    whole = tl.load(whole_p + row, mask=active, other=1.0)
    begin = tl.program_id(1) * group
    end = tl.minimum(begin + group * some, spans)
    for part in range(begin, end):
        light = tl.zeros((tokens,), tl.float32)
        for offset in range(0, span, codes_n):
            code = part * span + offset + lane
            known = (code[:, None] < size) & (column[None, :] < width)
            codes = tl.load(codes_p + code[:, None] * width + column[None, :], mask=known, other=0.0)
            here = active[:, None] & (code[None, :] < size)
            prior = tl.load(log_p + row[:, None] * size + code[None, :], mask=here, other=-float("inf"))
            logits = prior + tl.dot(left, tl.trans(codes), input_precision="ieee")
            light += tl.sum(tl.minimum(tl.exp(logits - peak[:, None]) / whole[:, None], threshold), 1)
        tl.store(light_p + part * count + row, light, mask=active)
