"""From named tensors to models: strict loading that says what is wrong, and the folder of a materialised teacher."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dd.checkpoints import hub, zoo
from dd.checkpoints.safe import load_tensors, save_tensors, state_dicts
from dd.config import Family
from dd.errors import DDError
from dd.models.base import Teacher
from dd.models.registry import build_student, build_teacher, build_tokenizer, family, make_config
from dd.system.files import sha256_file, write_text

logger = logging.getLogger(__name__)
Shapes = dict[str, tuple[int, ...]]

# Keys of official files that hold no weights and that our models do without.
IGNORED = {"freqs_cis": "LlamaGen's table of rotations, recomputed from the sizes"}
# Buffers that follow from the sizes or only count usage: EMA copies of official checkpoints may lack them.
DERIVED = ("lvl_1L", "attn_bias_for_masking", "zero_k_bias", "ema_vocab_hit_SV", "codebook_used")
# In teacher.json of a rehearsal: where the weights are from, and the name of captions' states without an encoder.
RANDOM_BLOCKS, RANDOM_STATES = "random blocks", "random"
IMPORT = "other sizes or classes: dd-cli zoo import NAME --family FAMILY --weights FILE"
# Prefixes that wrappers (DistributedDataParallel, torch.compile) put before every key.
WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")


# ------------------------------------------------------------------------------------------------------- strict loading


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Names and shapes."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def clean(tensors: Mapping[str, Tensor], keep_ignored: bool = False) -> dict[str, Tensor]:
    """Without wrappers' prefixes and without the keys of `IGNORED`."""
    result = dict(tensors)
    while result and (prefix := next((p for p in WRAPPERS if all(n.startswith(p) for n in result)), None)):
        result = {name.removeprefix(prefix): tensor for name, tensor in result.items()}
    return {name: tensor for name, tensor in result.items() if keep_ignored or name not in IGNORED}


def differences(expected: Shapes, found: Shapes, most: int = 2) -> list[str]:
    """What hinders loading, the first few of each sort in words; empty if it fits."""
    missing = [n for n in expected if n not in found and n.rpartition(".")[2] not in DERIVED]
    unexpected = [n for n in found if n not in expected]
    other = [n for n in expected if n in found and expected[n] != found[n]]
    words = [f"{name} missing" for name in missing[:most]]
    words += [f"{name} not expected" for name in unexpected[:most]]
    words += [f"{name}: expected {list(expected[name])}, got {list(found[name])}" for name in other[:most]]
    rest = sum(max(len(names) - most, 0) for names in (missing, unexpected, other))
    return [*words, f"{rest} more"] if rest else words


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Fill a module with the tensors of a file. Raises DDError with the first differences and the entry that fits."""
    tensors = clean(tensors)
    state = module.state_dict()
    refuse_misfit(shapes_of(state), shapes_of(tensors), path, name)
    module.load_state_dict({key: tensors.get(key, state[key]) for key in state}, strict=True)


def refuse_misfit(expected: Shapes, found: Shapes, path: Path, name: str) -> None:
    """Raise DDError if a file's tensors are not those of the entry `name`."""
    if not (wrong := differences(expected, found)):
        return
    fitting = [n for n in fitting_entries(found) if n != name]
    hint = f"it fits the entry {' or '.join(fitting)}" if fitting else f"it fits no entry of the zoo; {IMPORT}"
    raise DDError(f"{path} does not fit '{name}' ({'; '.join(wrong)}): {hint}")


def fitting_entries(found: Shapes) -> list[str]:
    """Entries of the zoo whose models have exactly these tensors."""
    depth = _depth(found)
    candidates = {n: e for n, e in zoo.entries().items() if _entry_depth(e) in (None, depth)}
    return [n for n in candidates if (shapes := entry_shapes(n)) and not differences(shapes, found)]


def _depth(shapes: Shapes) -> int:
    """Transformer blocks that the names count; 0 for a tokenizer."""
    return len({name.split(".")[1] for name in shapes if name.startswith(("layers.", "blocks."))})


def _entry_depth(entry: zoo.Entry) -> int | None:
    """The same from an entry's configuration, without building anything; None if it does not say."""
    if entry.kind == "tokenizer":
        return 0
    return (entry.config or {}).get(family(entry.family).depth) if entry.family else None


def entry_shapes(name: str) -> Shapes:
    """Names and shapes of an entry's model, built without memory; empty for entries that are no models."""
    entry = zoo.entry(name)
    if entry.family is None or entry.config is None or entry.kind not in ("tokenizer", "teacher", "student"):
        return {}
    codes = tokenizer_config(entry) if entry.kind == "teacher" else {}
    return _shapes(entry.kind, entry.family, json.dumps(codes), json.dumps(entry.config))


def network_shapes(kind: str, family_name: str, config: Mapping[str, Any]) -> Shapes:
    """Names and shapes of a transformer (kind "teacher") or a tokenizer, built without memory. Raises DDError."""
    record = family(family_name)
    part = record.tokenizer if kind == "tokenizer" else record.transformer
    with torch.device("meta"):
        return shapes_of(part.network(make_config(part.config, config)).state_dict())


@cache
def _shapes(kind: str, family: str, codes: str, config: str) -> Shapes:
    sizes = json.loads(config)
    if kind == "tokenizer":
        return shapes_of(build_tokenizer(family, sizes, "meta").state_dict())
    if kind == "student":
        return shapes_of(build_student(family, sizes, "meta").state_dict())
    teacher = build_teacher(family, json.loads(codes), sizes, "meta")
    return shapes_of(teacher.get_submodule("transformer").state_dict())


def tokenizer_config(teacher: zoo.Entry) -> dict[str, Any]:
    """Settings of a teacher's tokenizer: its entry's, with what the teacher overrides."""
    if teacher.tokenizer is None or teacher.config is None or teacher.family is None:
        raise DDError(f"zoo: '{teacher.name}' cannot be built: {teacher.limit or 'its entry names no sizes'}")
    return {**(zoo.entry(teacher.tokenizer, "tokenizer").config or {}), **teacher.tokenizer_config}


def read_weights(entry: zoo.Entry, path: Path, nesting: str | None = None) -> dict[str, Tensor]:
    """The tensors of an entry's file, at `nesting` or where a state dict that fits lies, averaged weights first.

    A file of another network is named with the entry that would fit.
    """
    try:
        files = zoo.shards(entry.file, path) or [path]
        places = entry.nesting if nesting is None else nesting
        tensors = {name: t for file in files for name, t in load_tensors(file, places).items()}
        return _own_part(entry, clean(tensors))
    except DDError as error:
        if nesting is None and (nested := _nested(entry, path)):
            return nested
        for other in dict.fromkeys(e.nesting for e in zoo.entries().values() if e.nesting != entry.nesting):
            try:
                found = shapes_of(clean(load_tensors(path, other)))
            except DDError:
                continue
            if names := fitting_entries(found):
                message = str(error).split(": name the entry")[0]
                raise DDError(f"{message}: it fits the entry {' or '.join(names)}, not '{entry.name}'") from None
        raise


def _nested(entry: zoo.Entry, path: Path) -> dict[str, Tensor]:
    """The state dict of a training checkpoint that fits an entry; empty if there is none."""
    try:
        inside = state_dicts(path)
    except DDError:
        return {}
    wanted = entry_shapes(entry.name) if entry.name in zoo.entries() else {}
    for place in sorted(inside, key=lambda one: "ema" not in one.lower()):
        found = _own_part(entry, clean(inside[place]))
        if wanted and not differences(wanted, shapes_of(found)):
            logger.info("%s: the weights of '%s' lie at %s", path.name, entry.name, place or "the top level")
            return found
    return {}


def _own_part(entry: zoo.Entry, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What belongs to an entry of a file that holds a whole model; all of a file that holds nothing else."""
    below = {n.removeprefix(entry.prefix): t for n, t in tensors.items() if n.startswith(entry.prefix)}
    return {name: tensor for name, tensor in below.items() if not name.startswith(entry.leave)} or tensors


# --------------------------------------------------------------------------------------------------------------- hashes


def tensors_hash(tensors: Mapping[str, Tensor], *more: Any) -> str:
    """SHA-256 over names, types, shapes and bytes, whatever file they come from, and over JSON-able `more`."""
    digest = hashlib.sha256(json.dumps(more, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _codebook_hash(tokenizer: Mapping[str, Tensor]) -> str:
    return tensors_hash({"codebook": tokenizer["quantize.embedding.weight"].float()})


# ------------------------------------------------------------------------------------------------------ teacher folders


@dataclass(frozen=True)
class TeacherInfo:
    """teacher.json: everything about a materialised teacher but its weights."""

    name: str
    family: Family
    tokenizer_config: dict[str, Any]
    transformer_config: dict[str, Any]
    image_size: int
    classes: tuple[str, ...]
    sha256: str
    codebook_sha256: str
    text_encoder: str | None = None
    licence: str = ""
    origin: dict[str, Any] = field(default_factory=dict)


def read_info(path: Path | str) -> TeacherInfo:
    """teacher.json of a teacher's folder. Raises DDError when there is none or it is of another version."""
    file = Path(path) / "teacher.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return TeacherInfo(**{**data, "classes": tuple(data["classes"])})
    except FileNotFoundError:
        raise DDError(f"expected a teacher in {path}, teacher.json is missing: run its stage 'teacher'") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DDError(f"{file} is damaged or of another version ({error}): run its stage 'teacher' again") from None


def materialise(
    name: str, target: Path, own: str | None = None, random_blocks: int = 0, nesting: str | None = None
) -> TeacherInfo:
    """Write tokenizer.safetensors, transformer.safetensors and teacher.json of a zoo's teacher into `target`.

    own: a file or folder of the user's that wins over the zoo's copies (`dd.checkpoints.zoo.weights_path`); nesting:
    where the transformer lies in it.
    random_blocks: above 0, a rehearsal's teacher of so many blocks instead (`materialise_random`).
    Everything is checked against the entry's sizes before a byte is written.
    """
    if random_blocks:
        return materialise_random(name, target, random_blocks)
    entry = zoo.entry(name, "teacher")
    codes = tokenizer_config(entry)
    parts = {"tokenizer": zoo.entry(entry.tokenizer or "", "tokenizer"), "transformer": entry}
    paths = {role: zoo.weights_path(part, own, role) for role, part in parts.items()}
    where = {"transformer": nesting}
    tensors = {role: read_weights(parts[role], path, where.get(role)) for role, path in paths.items()}
    for role, part in parts.items():
        refuse_misfit(entry_shapes(part.name), shapes_of(tensors[role]), paths[role], part.name)
    origin = {role: _origin(parts[role], path, own) for role, path in paths.items()}
    return _write(target, entry, codes, entry.config or {}, tensors, entry.text_encoder, origin)


def materialise_random(name: str, target: Path, blocks: int) -> TeacherInfo:
    """The same of a rehearsal: the entry's widths, so many blocks, random weights that are the same every time.

    Nothing is fetched, captions get random states; teacher.json says so in `origin`.
    """
    entry = zoo.entry(name, "teacher")
    codes = tokenizer_config(entry)
    config = {**(entry.config or {}), family(entry.family or "").depth: blocks}
    teacher = random_teacher(entry.family or "", codes, config)
    tensors = {role: teacher.get_submodule(role).state_dict() for role in ("tokenizer", "transformer")}
    encoder = RANDOM_STATES if entry.text_encoder else None
    return _write(target, entry, codes, config, tensors, encoder, {RANDOM_BLOCKS: blocks})


@torch.no_grad()
def random_teacher(name: str, codes: Mapping[str, Any], config: Mapping[str, Any], seed: int = 0) -> Teacher:
    """A family's teacher with random weights; its tokens are neither certain nor all alike (logits N(0, 2))."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        teacher = build_teacher(name, codes, config)
        for role in ("tokenizer", "transformer"):
            if hasattr(teacher.get_submodule(role), "init_weights"):
                teacher.get_submodule(role).init_weights()  # type: ignore[operator]
        for module in teacher.get_submodule("transformer").modules():
            if isinstance(module, nn.Linear) and module.out_features == len(teacher.codebook):
                nn.init.normal_(module.weight, std=2 / module.in_features**0.5)
    return frozen(teacher)


def _write(
    target: Path,
    entry: zoo.Entry,
    codes: dict[str, Any],
    config: dict[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    text_encoder: str | None,
    origin: dict[str, Any],
) -> TeacherInfo:
    name = entry.family
    assert name is not None
    info = TeacherInfo(
        name=entry.name,
        family=name,
        tokenizer_config=codes,
        transformer_config=config,
        image_size=build_teacher(name, codes, config, "meta").tokenizer.image_size,
        classes=entry.class_names(),
        sha256=tensors_hash({f"{r}.{k}": t for r in tensors for k, t in tensors[r].items()}, name, codes, config),
        codebook_sha256=_codebook_hash(tensors["tokenizer"]),
        text_encoder=text_encoder,
        licence=entry.licence,
        origin=origin,
    )
    target.mkdir(parents=True, exist_ok=True)
    for role, found in tensors.items():
        save_tensors(target / f"{role}.safetensors", found)
    write_text(target / "teacher.json", json.dumps(asdict(info), indent=1) + "\n")
    return info


def _origin(entry: zoo.Entry, path: Path, own: str | None) -> dict[str, Any]:
    """Where a file came from, without any path of this machine."""
    given = own is not None and path.resolve().is_relative_to(Path(own).expanduser().resolve())
    where: dict[str, Any] = {"file": path.name, "given by": "path"} if given else {"entry": entry.name}
    if not given and entry.file.repo:
        record = hub.recorded(entry.file.hub_file())
        where |= {"repo": entry.file.repo, "path": entry.file.path, "revision": record.revision if record else None}
    return where | {"sha256": sha256_file(path)}


def load_teacher_dir(path: Path | str, device: torch.device | str = "cpu") -> Teacher:
    """The teacher in a folder that `materialise` wrote, in evaluation mode, without gradients."""
    info = read_info(path)
    files = {role: Path(path) / f"{role}.safetensors" for role in ("tokenizer", "transformer")}
    tensors = {role: load_tensors(file) for role, file in files.items()}
    return _assemble(info.family, info.tokenizer_config, info.transformer_config, tensors, files, info.name, device)


def load_teacher(name: str, device: torch.device | str = "cpu") -> Teacher:
    """A teacher straight from the zoo."""
    entry = zoo.entry(name, "teacher")
    codes = tokenizer_config(entry)
    parts = {"tokenizer": zoo.entry(entry.tokenizer or "", "tokenizer"), "transformer": entry}
    files = {role: zoo.local(part.file) for role, part in parts.items()}
    tensors = {role: read_weights(parts[role], file) for role, file in files.items()}
    return _assemble(entry.family or "", codes, entry.config or {}, tensors, files, name, device)


def _assemble(
    family: str,
    codes: Mapping[str, Any],
    config: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    files: Mapping[str, Path],
    name: str,
    device: torch.device | str,
) -> Teacher:
    teacher = build_teacher(family, codes, config)
    for role in ("tokenizer", "transformer"):
        load_strict(teacher.get_submodule(role), tensors[role], files[role], name)
    return frozen(teacher).to(device)


def frozen(module: Any) -> Any:
    """The module in evaluation mode, its parameters without gradients."""
    return module.eval().requires_grad_(False)
