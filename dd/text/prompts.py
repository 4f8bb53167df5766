"""Prompts as text ids, for teachers that read the text themselves: a processor of transformers makes them.

The processor's own chat template and marks are put around each caption; nothing is encoded beyond that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dd.errors import DDError, install
from dd.text.conditions import Captions

log = logging.getLogger(__name__)
PREFIX = "processor:"


@dataclass(frozen=True)
class PromptProcessor:
    """As `dd.text.encoders.TextEncoder`, but its states are the ids themselves, of width 1.

    processor: a processor of transformers with `generation_mode="image"`, which pads on the left.
    """

    name: str
    identity: str
    processor: Any
    width: int = 1
    stored: str = "int32"  # what the cache keeps of a state

    def encode(self, captions: Sequence[str], length: int) -> Captions:
        """Captions to left-padded ids (B, length, 1); the text of a longer one is cut at its end, with a warning.

        Raises DDError for an empty caption, and where not even the marks fit.
        """
        for number, caption in enumerate(captions):
            if not caption.strip():
                raise DDError(f"caption {number + 1}: expected some words, got an empty one; write or remove it")
        found = [self._fitting(" ".join(caption.split()), length) for caption in captions]
        if cut := [caption for caption, (_, whole) in zip(captions, found, strict=True) if not whole]:
            shown = cut[0] if len(cut[0]) <= 60 else f"{cut[0][:57]}..."
            log.warning("%d caption(s) longer than %d word pieces were cut, the first: '%s'", len(cut), length, shown)
        states = torch.zeros(len(captions), length, 1, dtype=torch.int64)
        mask = torch.zeros(len(captions), length, dtype=torch.bool)
        for row, (ids, _) in enumerate(found):
            states[row, length - len(ids) :, 0] = torch.tensor(ids)
            mask[row, length - len(ids) :] = True
        return Captions(states, mask)

    def to(self, device: str | torch.device) -> PromptProcessor:
        """Ids are made on the CPU."""
        return self

    def _fitting(self, caption: str, length: int) -> tuple[list[int], bool]:
        """The ids of as much of a caption as fits, and whether that is all of it."""
        ids, text = self._ids(caption), caption
        while len(ids) > length:
            if not text:
                raise DDError(
                    f"prompts: expected at least {len(ids)} rows (for the processor's own marks), the teacher has "
                    f"{length}; raise its cls_token_num"
                )
            text = text[: len(text) - (len(ids) - length)] if len(text) > len(ids) - length else ""
            ids = self._ids(text.rstrip())
        return ids, text == caption

    def _ids(self, caption: str) -> list[int]:
        text = caption
        if self.processor.chat_template:
            turn = {"role": "user", "content": [{"type": "text", "text": caption}]}
            text = self.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        return [int(one) for one in self.processor(text=[text], generation_mode="image")["input_ids"][0]]


def open_processor(name: str) -> PromptProcessor:
    """A processor by `processor:` and its repository on the Hugging Face hub, or a folder that holds one."""
    place = name.removeprefix(PREFIX)
    if importlib.util.find_spec("transformers") is None:
        raise DDError(f"the text encoder {name} needs transformers: {install('text')}")
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(place, trust_remote_code=False)
        pieces = processor.tokenizer.backend_tokenizer.to_str()
    except (OSError, ValueError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DDError(
            f"text encoder {name}: no processor that could be read ({reason[:160]}); check the name, the network, or "
            "give a folder that holds it"
        ) from None
    identity = hashlib.sha256((pieces + str(processor.chat_template)).encode()).hexdigest()
    return PromptProcessor(name, identity, processor)
