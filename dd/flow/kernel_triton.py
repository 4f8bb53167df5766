"""The Triton code of `dd.flow.kernel`, apart from it because it can only be imported where Triton is installed."""

import triton
import triton.language as tl


@triton.jit
def kernel(
    left_p,
    log_p,
    codes_p,
    moments_p,
    light_p,
    count,
    size,
    threshold,
    width: tl.constexpr,
    padded: tl.constexpr,
    tokens: tl.constexpr,
    codes_n: tl.constexpr,
):
    """Moments and light of a tile of tokens; w = softmax(log_p + left codes^T) stays in registers."""
    row = (tl.program_id(0) * tokens + tl.arange(0, tokens)).to(tl.int64)
    column = tl.arange(0, padded)
    lane = tl.arange(0, codes_n)
    inside = row < count
    tile = inside[:, None] & (column[None, :] < width)
    left = tl.load(left_p + row[:, None] * width + column[None, :], mask=tile, other=0.0)
    top = tl.full((tokens,), -3.0e38, tl.float32)
    total = tl.zeros((tokens,), tl.float32)
    sums = tl.zeros((tokens, padded), tl.float32)
    for first in range(0, size, codes_n):
        code = first + lane
        known = (code[:, None] < size) & (column[None, :] < width)
        codes = tl.load(codes_p + code[:, None] * width + column[None, :], mask=known, other=0.0)
        here = inside[:, None] & (code[None, :] < size)
        prior = tl.load(log_p + row[:, None] * size + code[None, :], mask=here, other=-float("inf"))
        logits = prior + tl.dot(left, tl.trans(codes), input_precision="ieee")
        new = tl.maximum(top, tl.max(logits, 1))
        weights = tl.exp(logits - new[:, None])
        shrink = tl.exp(top - new)
        total = total * shrink + tl.sum(weights, 1)
        sums = sums * shrink[:, None] + tl.dot(weights, codes, input_precision="ieee")
        top = new
    tl.store(moments_p + row[:, None] * width + column[None, :], sums / total[:, None], mask=tile)
    light = tl.zeros((tokens,), tl.float32)
    for first in range(0, size, codes_n):
        code = first + lane
        known = (code[:, None] < size) & (column[None, :] < width)
        codes = tl.load(codes_p + code[:, None] * width + column[None, :], mask=known, other=0.0)
        here = inside[:, None] & (code[None, :] < size)
        prior = tl.load(log_p + row[:, None] * size + code[None, :], mask=here, other=-float("inf"))
        logits = prior + tl.dot(left, tl.trans(codes), input_precision="ieee")
        light += tl.sum(tl.minimum(tl.exp(logits - top[:, None]) / total[:, None], threshold), 1)
    tl.store(light_p + row, light, mask=inside)
