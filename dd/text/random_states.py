"""States of captions in a rehearsal: right in shape, drawn from the caption's own hash. No encoder is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dd.errors import DDError
from dd.text.conditions import Captions

RANDOM_STATES = "random"
IDS = 1000  # ids of the text, for teachers that read it themselves


@dataclass(frozen=True)
class RandomStates:
    """As `dd.text.encoders.TextEncoder`: one state a word and one for the end, N(0, 1); ids where the width is 1."""

    width: int
    name: str = RANDOM_STATES
    identity: str = "1"

    @property
    def stored(self) -> str:
        """What the cache keeps of a state."""
        return "int32" if self.width == 1 else "float16"

    def encode(self, captions: Sequence[str], length: int) -> Captions:
        """Captions to left-padded states (B, length, W). Raises DDError for an empty caption."""
        dtype = torch.int64 if self.width == 1 else torch.float32
        states = torch.zeros(len(captions), length, self.width, dtype=dtype)
        mask = torch.zeros(len(captions), length, dtype=torch.bool)
        for row, caption in enumerate(captions):
            if not caption.strip():
                raise DDError(f"caption {row + 1}: expected some words, got an empty one; write or remove it")
            rows = min(len(caption.split()) + 1, length)
            seed = int.from_bytes(hashlib.sha256(caption.encode()).digest()[:7], "big")
            generator = torch.Generator().manual_seed(seed)
            shape = (rows, self.width)
            ids = self.width == 1
            found = torch.randint(IDS, shape, generator=generator) if ids else torch.randn(shape, generator=generator)
            states[row, length - rows :], mask[row, length - rows :] = found, True
        return Captions(states, mask)
