"""Checkpoints in and out: only tensors are ever read, and a file appears under its name only when it is whole.

Reading knows three formats, told apart by their first bytes: safetensors (one file, or shards by their index.json),
torch's zip archive, torch's older pickle stream. Pickles are scanned *before* they are opened: one that names anything
but tensors, plain containers, numpy's numbers and `argparse.Namespace` (inert data that training checkpoints carry) is
refused and its code never runs. What passes is then read with `weights_only=True`, so that two independent guards stand
between a file and the interpreter.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import pickletools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dd.errors import DDError
from dd.system.files import atomic_path, sha256_file, write_text

__all__ = ["atomic_path", "load_tensors", "read_metadata", "save_tensors", "sha256_file", "write_text"]

METADATA_KEY = "dd"  # one key holding JSON: safetensors writes several keys in random order, and files must be equal
MAX_PICKLE = 256 * 2**20  # bytes of a checkpoint's object tree; official ones have under one megabyte
_LEGACY_PICKLES = 5  # magic number, protocol, system, objects, storage keys: the order of torch's older format
_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "STRING"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_HARMLESS = {
    "collections.OrderedDict",
    "argparse.Namespace",
    "torch.Size",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    # a numpy number, such as a count of steps
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
}
_SCALAR: Any = getattr(np, "_core").multiarray.scalar  # noqa: B009
_INERT: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(getattr(np.dtypes, name) for name in np.dtypes.__all__ if "Object" not in name),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 calls it
]
MAX_DEPTH = 4  # of dictionaries around a state dict


# ------------------------------------------------------------------------------------------------------------- writing


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write a safetensors file atomically; the same tensors and metadata always give the same bytes.

    metadata: anything JSON can hold; `read_metadata` returns it.
    """
    ready: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        ready[name] = tensor.clone() if storage in storages else tensor  # safetensors refuses tensors that share memory
        storages.add(storage)
    text = {METADATA_KEY: json.dumps(metadata, sort_keys=True)} if metadata is not None else None
    with atomic_path(path) as temporary:
        try:
            save_file(ready, temporary, metadata=text)
        except SafetensorError as error:  # it wraps the operating system's error in text
            code = errno.ENOSPC if "os error 28" in str(error) or "No space" in str(error) else errno.EIO
            raise OSError(code, str(error)) from error


def read_metadata(path: Path | str) -> dict[str, Any]:
    """What `save_tensors` was given as metadata; empty for files of other programs."""
    try:
        with safe_open(str(path), framework="pt") as file:
            found = (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError) as error:
        raise DDError(_unreadable(Path(path), error)) from error
    return json.loads(found) if found else {}


# ------------------------------------------------------------------------------------------------------------- reading


def load_tensors(path: Path | str, nesting: str | Sequence[str] | None = None) -> dict[str, Tensor]:
    """Named tensors of a checkpoint, on the CPU, without executing anything from it.

    nesting: where the state dict lies in a torch file, as dotted keys: "trainer.ema_parameters"; several are tried in
    order, "" is the file's top level. A safetensors file is flat and needs none.
    Raises DDError for a missing, truncated or foreign file, for a pickle with code in it, and for another nesting.
    """
    path = Path(path)
    kind = _kind(path)
    if kind in ("safetensors", "index"):
        return _load_shards(path) if kind == "index" else _load_safetensors(path)
    _refuse_code(path, kind)
    alternatives = [nesting] if isinstance(nesting, str) else list(nesting or [""])
    return _state_dict(path, _torch_load(path, kind), alternatives)


def state_dicts(path: Path | str) -> dict[str, dict[str, Tensor]]:
    """Every flat dict of tensors in a checkpoint by its nesting ("" is the top level), the outermost first.

    What training scripts keep beside it (optimizers, arguments, counts) is passed over. Raises DDError where
    `load_tensors` does.
    """
    path = Path(path)
    kind = _kind(path)
    if kind in ("safetensors", "index"):
        return {"": load_tensors(path)}
    _refuse_code(path, kind)
    content, found = _torch_load(path, kind), {}
    waiting = [("", content)]
    while waiting:
        nesting, inner = waiting.pop(0)
        if not isinstance(inner, dict) or not inner:
            continue
        if all(isinstance(value, Tensor) for value in inner.values()):
            found[nesting] = {str(name): tensor.detach() for name, tensor in inner.items()}
        elif nesting.count(".") < MAX_DEPTH - 1:
            waiting += [(f"{nesting}.{key}".lstrip("."), value) for key, value in inner.items()]
    if not found:
        raise DDError(f"{path} holds no state dict, found {_outline(content)}: check the file")
    return found


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise DDError(_unreadable(path, error)) from error


def _load_shards(index: Path) -> dict[str, Tensor]:
    """All tensors that a `*.safetensors.index.json` names, from the files beside it."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(names.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DDError(f"{index} is no index of shards: expected JSON with a weight_map of names to files") from None
    tensors: dict[str, Tensor] = {}
    for file in files:
        if Path(file).name != file:
            raise DDError(f"{index} names a file in another folder ({file}): expected the shards beside it")
        tensors |= _load_safetensors(index.with_name(file)) if _kind(index.with_name(file)) == "safetensors" else {}
    if missing := [name for name in names if name not in tensors]:
        raise DDError(f"{index}: {missing[0]} is in none of its {len(files)} files: fetch them again")
    return {name: tensors[name] for name in names}


def _kind(path: Path) -> str:
    """safetensors, index, zip or pickle, from the first bytes; anything else is refused with what it looks like."""
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise DDError(f"expected a checkpoint at {path}, but {what}: check the path")
    with open(path, "rb") as file:
        head = file.read(64)
    if head[:4] == b"PK\x03\x04":
        return "zip"
    if path.name.endswith(".index.json"):
        return "index"
    if head[8:9] == b"{":  # before the pickle test: a header of 128 bytes, say, makes its first byte 0x80 too
        return "safetensors"
    if head[:1] == b"\x80":
        return "pickle"
    looks = _looks_like(head)
    raise DDError(f"expected a checkpoint (safetensors, .pt, .pth) at {path}, but {looks}: fetch the file again")


def _looks_like(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself"
    if head.lstrip()[:1] == b"<":
        return "it is a web page"
    return f"it starts with the bytes {head[:8].hex(' ')}"


def _unreadable(path: Path, error: Exception) -> str:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{path} is truncated or damaged ({first_line}): delete it and fetch or make it again"


def _torch_load(path: Path, kind: str) -> Any:
    try:
        with torch.serialization.safe_globals(_INERT):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")
    except Exception as error:  # every way in which a damaged file can fail; nothing of it has been executed
        raise DDError(_unreadable(path, error)) from error


def _state_dict(path: Path, content: Any, alternatives: Sequence[str]) -> dict[str, Tensor]:
    """The flat dict of tensors under the first of the alternative nestings that the file has."""
    for nesting in alternatives:
        found = _descend(content, nesting)
        if isinstance(found, dict) and found and all(isinstance(value, Tensor) for value in found.values()):
            return {str(name): tensor.detach() for name, tensor in found.items()}
    wanted = " or ".join(f'"{nesting}"' if nesting else "the top level" for nesting in alternatives)
    raise DDError(f"expected tensors at {wanted} of {path}, found {_outline(content)}: name the entry it belongs to")


def _descend(content: Any, nesting: str) -> Any:
    for key in nesting.split(".") if nesting else []:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _outline(content: Any) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    keys = list(map(str, content))
    return f"the keys {', '.join(keys[:6])}{' ...' if len(keys) > 6 else ''}" if keys else "nothing"


# -------------------------------------------------------------------------------------------------- what a pickle names


def _refuse_code(path: Path, kind: str) -> None:
    """Raise if the checkpoint's pickle names anything that is not plain data."""
    try:
        names = list(_zip_globals(path) if kind == "zip" else _legacy_globals(path))
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, IndexError) as error:
        if isinstance(error, DDError):
            raise
        raise DDError(_unreadable(path, error)) from error
    offending = next((name for name in names if not _is_harmless(name)), None)
    if offending:
        raise DDError(
            f"{path} holds code ({offending}), not only tensors, and was not opened: "
            "ask its author for a safetensors file"
        )


def _is_harmless(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if name in _HARMLESS or (module == "torch._utils" and attribute.startswith("_rebuild_")):
        return True
    return module in ("torch", "torch.storage") and (
        attribute.endswith("Storage") or isinstance(getattr(torch, attribute, None), torch.dtype)
    )


def _zip_globals(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith("data.pkl")]
        if len(members) != 1 or any(info.filename.endswith("constants.pkl") for info in archive.infolist()):
            raise DDError(f"expected a checkpoint at {path}, found a zip archive of another kind: check the file")
        if members[0].file_size > MAX_PICKLE:
            raise DDError(f"the object tree of {path} is larger than {MAX_PICKLE >> 20} MiB: it is no checkpoint")
        yield from pickle_globals(io.BytesIO(archive.read(members[0])))


def _legacy_globals(path: Path) -> Iterator[str]:
    with open(path, "rb") as file:
        for part in range(_LEGACY_PICKLES):
            names = list(pickle_globals(file))
            yield from names
            if part == 0 and not names and file.tell() > 64:  # torch's magic number is a pickle of 14 bytes
                raise DDError(f"expected a checkpoint at {path}, found a plain pickle: save it as safetensors")
            if part == 0 and names:
                return  # a plain pickle: whatever it names has been reported, there is no second part


def pickle_globals(stream: Any) -> Iterator[str]:
    """Names ("module.attribute") that one pickle would import, in order, found without running it."""
    memo: dict[int, str] = {}
    strings: list[str] = []
    last = ""
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif name == "STACK_GLOBAL":
            yield ".".join(strings[-2:]) or "an unnamed object"
        elif name == "MEMOIZE":
            memo[len(memo)] = last
            continue
        elif name in _PUTS:
            memo[int(str(argument))] = last
            continue
        last = str(argument) if name in _STRINGS else memo.get(int(str(argument)), "") if name in _GETS else ""
        if last:
            strings.append(last)
