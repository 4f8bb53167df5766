"""Several linear layers of one input as one matrix product, while each keeps its official name and its parameter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Joined:
    """The weights of some linear layers without biases, one below the other, for when nothing is trained.

    The layers' parameters become views of the joined matrix, so nothing is stored twice and changes in place are seen.
    Whatever gives a layer another tensor (`.to`, loading with assign) is noticed, and the matrix made again.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.layers = layers
        self.matrix: Tensor | None = None
        self.ends: tuple[int, int] | None = None

    def weight(self) -> Tensor:
        """(sum of outputs, inputs)."""
        first, last = self.layers[0].weight, self.layers[-1].weight
        if self.matrix is None or self.ends != (first.data_ptr(), last.data_ptr()):
            self.matrix = self._join()
            self.ends = self.layers[0].weight.data_ptr(), self.layers[-1].weight.data_ptr()
        return self.matrix

    @torch.inference_mode(False)
    def _join(self) -> Tensor:
        matrix = torch.cat([layer.weight.detach() for layer in self.layers])
        for layer, rows in zip(self.layers, matrix.split([layer.out_features for layer in self.layers]), strict=True):
            layer.weight.data = rows
        return matrix

    def __deepcopy__(self, memo: dict[int, object]) -> Joined:
        from copy import deepcopy

        return Joined(deepcopy(self.layers, memo))
