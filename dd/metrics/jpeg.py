"""Whether images have been JPEGs: their 8 x 8 blocks lack high frequencies on the grid of JPEG and on no other one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

BLOCK = 8
SMALL = 1.0  # a coefficient that JPEG set to 0 comes back smaller than that: the pixels were rounded
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def jpeg_excess(images: NDArray[np.uint8]) -> float:
    """Share of small high frequencies in JPEG's blocks less that in blocks shifted by half; about 0 without JPEG.

    images: (B, H, W, 3). A generator whose own patches begin at multiples of 8 is no reason: its blocks are not empty.
    """
    grey = images.astype(np.float32) @ LUMA
    return _share(grey) - _share(grey[:, BLOCK // 2 :, BLOCK // 2 :])


def _share(grey: NDArray[np.float32]) -> float:
    """Share of the coefficients in the upper half of both frequencies that are below SMALL; grey: (B, H, W)."""
    count, height, width = grey.shape
    rows, columns = height // BLOCK, width // BLOCK
    blocks = grey[:, : rows * BLOCK, : columns * BLOCK].reshape(count, rows, BLOCK, columns, BLOCK)
    coefficients = dctn(blocks, axes=(2, 4), norm="ortho")[:, :, BLOCK // 2 :, :, BLOCK // 2 :]
    return float((np.abs(coefficients) < SMALL).mean())
