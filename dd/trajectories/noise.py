"""Gaussian noise as a pure function of (seed, sample index): the same bits on every machine and library version.

A trajectory shard stores no noise (an image of VAR would need 88 KB of it); whoever reads a pair recomputes it. So the
bits must not depend on a device, a batch, a thread count or a release of numpy or torch:

- random words come from the counter-based generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy
  as 1, 2, 3", SC 2011): word = F_seed(block, index, stream), in exact integer arithmetic;
- normals are the inverse normal distribution function of one word each (Wichura's algorithm AS 241, PPND16), which is
  computed with additions, products, quotients and square roots of float64 only. IEEE 754 defines these exactly;
  library versions of log or exp, which differ in the last bit, are not called.

Counter words: (block of four values, index low, index high, stream); key: the two halves of the seed.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dd.errors import DDError

# Independent families of numbers under one seed.
NOISE, UNIFORM = 0, 1

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_CHUNK = 1 << 15  # blocks of four values at a time: the work arrays stay in the cache


def _coefficients(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


# Wichura 1988, AS 241, PPND16: numerator and denominator, highest power first.
_CENTRE = (
    _coefficients(
        "2.5090809287301226727e3 3.3430575583588128105e4 6.7265770927008700853e4 4.5921953931549871457e4 "
        "1.3731693765509461125e4 1.9715909503065514427e3 1.3314166789178437745e2 3.3871328727963666080e0"
    ),
    _coefficients(
        "5.2264952788528545610e3 2.8729085735721942674e4 3.9307895800092710610e4 2.1213794301586595867e4 "
        "5.3941960214247511077e3 6.8718700749205790830e2 4.2313330701600911252e1 1.0"
    ),
)
_TAIL = (
    _coefficients(
        "7.74545014278341407640e-4 2.27238449892691845833e-2 2.41780725177450611770e-1 1.27045825245236838258e0 "
        "3.64784832476320460504e0 5.76949722146069140550e0 4.63033784615654529590e0 1.42343711074968357734e0"
    ),
    _coefficients(
        "1.05075007164441684324e-9 5.47593808499534494600e-4 1.51986665636164571966e-2 1.48103976427480074590e-1 "
        "6.89767334985100004550e-1 1.67638483018380384940e0 2.05319162663775882187e0 1.0"
    ),
)
_LN2 = 0.6931471805599453


def noise(seed: int, indices: ArrayLike | Tensor, length: int, width: int) -> Tensor:
    """Standard normal noise of some samples.

    indices: (B,) sample indices. Returns (B, length, width) float32 on the CPU. A row depends on (seed, its index)
    only, and a longer `length` continues it: noise(.., 64, C)[:, :16] equals noise(.., 16, C).
    """
    values = _normal(_words(seed, indices, length * width, NOISE))
    return torch.from_numpy(values).view(-1, length, width)


def uniform(seed: int, indices: ArrayLike | Tensor, length: int) -> Tensor:
    """Uniform numbers in (0, 1), float64, for multinomial draws: (B,) sample indices to (B, length)."""
    words = _words(seed, indices, length, UNIFORM)
    return torch.from_numpy((words.astype(np.float64) + 0.5) * 2.0**-32)


def _words(seed: int, indices: ArrayLike | Tensor, count: int, stream: int) -> NDArray[np.uint32]:
    """(B, count) random 32-bit words: row b belongs to sample indices[b]."""
    if not 0 <= seed < 2**64:
        raise DDError(f"seed must be in 0..2^64-1, got {seed}")
    rows = np.asarray(indices)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise DDError(f"indices must be one row of integers, got shape {rows.shape} of {rows.dtype}")
    if rows.size and rows.min() < 0:
        raise DDError(f"sample indices start at 0, got {rows.min()}")
    blocks = -(-count // 4)
    out = np.empty((rows.size, blocks, 4), dtype=np.uint32)
    flat = out.reshape(-1, 4)
    samples = rows.astype(np.uint64)
    for start in range(0, len(flat), _CHUNK):
        at = np.arange(start, min(start + _CHUNK, len(flat)), dtype=np.uint64)
        sample = samples[at // np.uint64(blocks)]
        counter = (at % np.uint64(blocks), sample & _MASK, sample >> _SHIFT, np.full_like(at, stream))
        for column, word in enumerate(philox(counter, (seed & 0xFFFFFFFF, seed >> 32))):
            flat[start : start + len(at), column] = word
    return out.reshape(rows.size, 4 * blocks)[:, :count]


def philox(
    counter: tuple[NDArray[np.uint64], ...], key: tuple[int, int], rounds: int = 10
) -> tuple[NDArray[np.uint64], ...]:
    """Philox4x32: four counter words (uint64 arrays below 2^32) and a key to four random words of the same form."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            p1 & _MASK,
            (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            p0 & _MASK,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _normal(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Inverse normal distribution function of (word + 1/2) / 2^32, rounded to float32."""
    out = np.empty(words.size, dtype=np.float32)
    flat = words.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        # u - 1/2 is exact in float64, so the result is exactly odd around the middle.
        q = (flat[start : start + _CHUNK].astype(np.float64) - 2147483647.5) * 2.0**-32
        z = q * _ratio(_CENTRE, 0.180625 - q * q)
        (far,) = np.nonzero(np.abs(q) > 0.425)
        tail = 0.5 - np.abs(q[far])
        z[far] = np.copysign(_ratio(_TAIL, np.sqrt(-_log(tail)) - 1.6), q[far])
        out[start : start + _CHUNK] = z
    return out.reshape(words.shape)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """A quotient of two polynomials by Horner's rule; numpy rounds every product and sum (no fused multiply-add)."""
    values = []
    for polynomial in coefficients:
        value = np.full_like(x, polynomial[0])
        for c in polynomial[1:]:
            value *= x
            value += c
        values.append(value)
    values[0] /= values[1]
    return values[0]


def _log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm of positive numbers: 2 artanh((m - 1) / (m + 1)) + e ln 2 for x = m 2^e, m about 1."""
    m, e = np.frexp(x)
    low = m < 0.7071067811865476
    m = np.where(low, m * 2, m)
    e = e - low
    s = (m - 1) / (m + 1)
    square = s * s
    series = np.full_like(s, 1 / 21)
    for k in range(19, 0, -2):
        series = series * square + 1 / k
    return 2 * s * series + e * _LN2
