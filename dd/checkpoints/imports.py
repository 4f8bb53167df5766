"""Checkpoints of other people's training scripts into the zoo: found in their nesting, measured, checked, stored.

The sizes are read from the tensors (`dd.models.family.Reader`); everything else must fit exactly.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dd.checkpoints import zoo
from dd.checkpoints.safe import save_tensors, state_dicts
from dd.checkpoints.teachers import clean, differences, network_shapes, shapes_of
from dd.errors import DDError
from dd.models.family import Reader
from dd.models.registry import build_tokenizer, family

log = logging.getLogger(__name__)
SOURCE = "imported from a checkpoint of yours: `dd-cli zoo import`"
AVERAGED = ("ema", "averaged")


@dataclass(frozen=True)
class Found:
    """A network in a checkpoint: where it lies ("" is the top level), its tensors, its settings."""

    nesting: str
    tensors: dict[str, Tensor]
    config: dict[str, Any]


def import_teacher(
    name: str,
    family_name: str,
    weights: Path,
    tokenizer: Path | None = None,
    nesting: str | None = None,
    classes: tuple[str, ...] | None = None,
    said: Mapping[str, Any] | None = None,
    licence: str = "not stated",
    text_encoder: str | None = None,
) -> list[str]:
    """Enter a teacher and its tokenizer into the zoo. Returns what was found and written, line by line.

    nesting: where the transformer lies; default: wherever one is, averaged weights first. tokenizer: its file; default
    the same file, else an official one with the same codes. classes: their names. said: settings that no tensor tells.
    Raises DDError for what cannot be read, does not fit or has the name of another entry.
    """
    if not name or name in zoo.entries() or f"{name}-tokenizer" in zoo.entries():
        raise DDError(f"the zoo has an entry '{name}' already: choose another name")
    reader = family(family_name).read
    if reader is None:
        raise DDError(
            f"checkpoints of family {family_name} cannot be imported; place them as docs/official-models.md says"
        )
    inside = state_dicts(weights)
    network = find_transformer(family_name, reader, inside, weights, nesting, said or {})
    codes, entry = find_tokenizer(family_name, reader, inside, weights, tokenizer, network)
    names = _class_names(network.config, classes)
    folder = zoo.index_file().parent / name
    common: dict[str, Any] = {"family": family_name, "licence": licence, "source": SOURCE, "largest": None}
    if codes is not None:
        entry = f"{name}-tokenizer"
        save_tensors(folder / "tokenizer.safetensors", codes.tensors)
        about = {"file": (tokenizer or weights).name, "nesting": codes.nesting}
        file = folder / "tokenizer.safetensors"
        zoo.register(entry, "tokenizer", file, config=codes.config, provenance=about, **common)
    save_tensors(folder / "teacher.safetensors", network.tensors)
    override = {} if codes is not None else _override(reader, entry, network)
    zoo.register(
        name,
        "teacher",
        folder / "teacher.safetensors",
        config=network.config,
        tokenizer=entry,
        tokenizer_config=override,
        classes=names,
        text_encoder=text_encoder if "caption_dim" in network.config else None,
        provenance={"file": weights.name, "nesting": network.nesting},
        **common,
    )
    return [
        f"transformer  {_where(network)}: {_in_words(network.config)}",
        f"tokenizer    {_where(codes) if codes is not None else f'entry {entry} of the zoo'}",
        f"wrote zoo/{name} and the entry '{name}' ({len(names) or 'no'} classes)",
    ]


def find_transformer(
    family_name: str,
    reader: Reader,
    inside: Mapping[str, Mapping[str, Tensor]],
    path: Path,
    nesting: str | None,
    said: Mapping[str, Any],
) -> Found:
    """The transformer of a checkpoint. Raises DDError that says of the nearest candidate what is wrong."""
    if nesting is not None and nesting not in inside:
        raise DDError(f"{path} has no tensors at '{nesting}'; there are some at {_listed(inside)}")
    fits, problems = [], []
    for place, tensors in inside.items():
        if nesting not in (None, place):
            continue
        try:
            config = reader.transformer(clean(tensors, keep_ignored=True), said)
        except (KeyError, IndexError, ValueError) as error:
            problems.append(f"{_listed([place])}: {error if isinstance(error, DDError) else f'no {error.args[0]}'}")
            continue
        found = clean(tensors)
        wrong = differences(network_shapes("teacher", family_name, config), shapes_of(found))
        if wrong:
            problems.append(f"{_listed([place])}: {'; '.join(wrong)}")
        else:
            fits.append(Found(place, found, config))
    if not fits:
        raise DDError(f"{path} holds no transformer of family {family_name} ({' | '.join(problems[-3:])})")
    fits.sort(key=lambda one: not any(word in one.nesting.lower() for word in AVERAGED))
    if len(fits) > 1:
        others = _listed(one.nesting for one in fits[1:])
        log.info(
            "%s: took %s; there is one at %s too (--nesting chooses)", path.name, _listed([fits[0].nesting]), others
        )
    return fits[0]


def find_tokenizer(
    family_name: str,
    reader: Reader,
    inside: Mapping[str, Mapping[str, Tensor]],
    weights: Path,
    given: Path | None,
    network: Found,
) -> tuple[Found | None, str]:
    """The tokenizer of a file, or else the name of an official entry with the same codes. Raises DDError."""
    problems = []
    candidates = state_dicts(given) if given else inside
    for place in sorted(candidates, key=lambda one: not any(word in one.lower() for word in AVERAGED)):
        found = clean(candidates[place])
        try:
            config = reader.tokenizer(found, network.config)
        except (KeyError, IndexError) as error:
            problems.append(f"{_listed([place])}: no {error.args[0]}")
            continue
        if wrong := differences(network_shapes("tokenizer", family_name, config), shapes_of(found)):
            problems.append(f"{_listed([place])}: {'; '.join(wrong)}")
        elif config["codebook_size"] != network.config["vocab_size"]:
            problems.append(f"{config['codebook_size']} codes, the transformer has {network.config['vocab_size']}")
        else:
            return Found(place, found, config), ""
    if given:
        raise DDError(f"{given} holds no tokenizer of family {family_name} ({' | '.join(problems[-3:])})")
    for name, entry in zoo.entries().items():
        if entry.kind == "tokenizer" and entry.family == family_name and not entry.shipped and entry.config is not None:
            codebook = build_tokenizer(family_name, entry.config, "meta").codebook
            if codebook.shape[0] == network.config["vocab_size"]:
                return None, name
    raise DDError(
        f"{weights} holds no tokenizer, and no official one has its {network.config['vocab_size']} codes: --tokenizer"
    )


def _override(reader: Reader, entry: str, network: Found) -> dict[str, Any]:
    """Settings in which the teacher's use of an official tokenizer differs: the grid."""
    known = {"patch_nums": network.config.get("patch_nums")} if "patch_nums" in network.config else {}
    if "block_size" in network.config:
        known = {"latent": round(network.config["block_size"] ** 0.5)}
    config = zoo.entry(entry, "tokenizer").config or {}
    return {key: value for key, value in known.items() if config.get(key) != value}


def _class_names(config: Mapping[str, Any], given: tuple[str, ...] | None) -> tuple[str, ...]:
    count = config.get("num_classes")
    if "caption_dim" in config:
        if given:
            raise DDError(f"a text-to-image teacher has no classes, got {len(given)}: leave them out")
        return ()
    if given is not None and len(given) != count:
        raise DDError(f"classes: expected {count}, as the class embedding has them, got {len(given)}")
    return given if given is not None else tuple(map(str, range(count or 0)))


def _listed(nestings: Any) -> str:
    return ", ".join(f"'{one}'" if one else "the top level" for one in nestings)


def _where(found: Found) -> str:
    return _listed([found.nesting])


def _in_words(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in config.items())
