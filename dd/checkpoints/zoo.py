"""Named teachers, students and what belongs to them: where the files are, their hashes, licences and settings.

Two indexes: `zoo/index.yaml` of the project (files that ship with it) and `dd/checkpoints/hub_index.yaml` (official
checkpoints on the Hugging Face hub). One entry is one weights file with its configuration; a teacher names its
tokenizer's entry, a student its teacher's. This module needs no torch; `dd.checkpoints.teachers` builds the models.
"""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml
from filelock import FileLock
from pydantic import Field, ValidationError

from dd.checkpoints import assets, hub
from dd.config import Family, project_root
from dd.errors import DDError
from dd.sections import Section
from dd.system.files import sha256_file, write_text
from dd.system.names import hint

HUB_INDEX = Path(__file__).with_name("hub_index.yaml")
LARGEST_SHIPPED = 10_000_000  # bytes of a file in the repository
INDEX_HEADER = (
    "# What ships in zoo/, written by zoo/register.py: one weights file per entry, with hashes and provenance.\n"
)

Kind = Literal["teacher", "student", "tokenizer", "extractor", "reference", "text"]


class FileInfo(Section):
    """A file of an entry: `path` below zoo/, or inside the hub repository `repo`."""

    path: str
    repo: str | None = None
    revision: str = Field(default="main", description="commit, tag or branch; the first fetch records the commit")
    sha256: str | None = None
    size: int | None = None
    size_at_least: int | None = Field(
        default=None, description="bytes of the tensors, where the file's size is not published"
    )

    def hub_file(self) -> hub.HubFile:
        """The same for `dd.checkpoints.hub`."""
        assert self.repo is not None
        return hub.HubFile(self.repo, self.path, self.revision)

    def size_text(self) -> str:
        """For tables: a known size, a lower bound, or a question mark."""
        size = self.size or self.size_at_least
        if size is None:
            return "?"
        text = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
        return text if self.size else f">= {text}"


class Entry(Section):
    """One line of the zoo."""

    name: str
    kind: Kind
    file: FileInfo
    companions: tuple[FileInfo, ...] = Field(default=(), description="further files that belong to it")
    family: Family | None = None
    about: str = ""
    nesting: tuple[str, ...] = ("",)
    prefix: str = Field(default="", description="of its tensors' names in a file that holds other things too")
    leave: tuple[str, ...] = Field(default=(), description="parts below the prefix that are not its own")
    config: dict[str, Any] | None = None
    tokenizer: str | None = Field(default=None, description="teacher: entry of its tokenizer")
    tokenizer_config: dict[str, Any] = Field(
        default={}, description="settings in which this teacher's use of it differs"
    )
    teacher: str | None = Field(default=None, description="student: entry of its teacher")
    classes: Literal["imagenet"] | tuple[str, ...] | None = None
    text_encoder: str | None = None
    filters: dict[str, float] = Field(default={}, description="guidance and filters it is best sampled with")
    published: dict[str, Any] = Field(default={})
    limit: str = Field(default="", description="why it can be fetched but not built")
    licence: str
    source: str
    provenance: dict[str, Any] = Field(default={})

    @property
    def shipped(self) -> bool:
        """Whether its file lies in zoo/."""
        return self.file.repo is None

    def files(self) -> tuple[FileInfo, ...]:
        """All its files, the weights first."""
        return (self.file, *self.companions)

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by index; empty for what has none."""
        if self.classes == "imagenet":
            from torchvision.models import ResNet18_Weights

            return tuple(ResNet18_Weights.DEFAULT.meta["categories"])
        return self.classes or ()


# ---------------------------------------------------------------------------------------------------------- the indexes


def index_file() -> Path:
    """The project's own index."""
    return project_root() / "zoo" / "index.yaml"


def entries() -> dict[str, Entry]:
    """All entries by name: those that ship first, then the hub's."""
    found = _read_index(index_file()) if index_file().is_file() else {}
    return found | {name: e for name, e in _read_index(HUB_INDEX).items() if name not in found}


def entry(name: str, kind: Kind | None = None) -> Entry:
    """One entry. Raises DDError that offers the nearest names, or names the kind that was expected."""
    known = entries()
    if name not in known:
        wanted = [n for n, e in known.items() if kind in (None, e.kind)]
        raise DDError(f"no {kind or 'entry'} '{name}' in the zoo; {hint(name, wanted)}")
    found = known[name]
    if kind is not None and found.kind != kind:
        raise DDError(f"zoo: expected a {kind}, '{name}' is a {found.kind}; see 'dd-cli zoo list'")
    return found


def _read_index(path: Path) -> dict[str, Entry]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
        return {name: Entry(name=name, **fields) for name, fields in data.items()}
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DDError(f"{path}: {where}: {first['msg']}, got {first['input']!r}") from None
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise DDError(f"{path} is not an index ({' '.join(str(error).split())}): restore it from git") from None


def register(
    name: str,
    kind: Kind,
    file: Path,
    *,
    companions: tuple[Path, ...] = (),
    largest: int | None = LARGEST_SHIPPED,
    **fields: Any,
) -> Entry:
    """Write (or replace) an entry of zoo/index.yaml for files below zoo/, with their sizes and SHA-256.

    fields: as in `Entry`; licence and source are needed. largest: bytes that a file may have (None: any number).
    Raises DDError for a file elsewhere, missing or larger.
    """
    described = [_describe(Path(path), largest) for path in (file, *companions)]
    new = Entry(name=name, kind=kind, file=described[0], companions=tuple(described[1:]), **fields)
    path = index_file()
    with FileLock(f"{path}.lock"):
        kept = _read_index(path) if path.is_file() else {}
        kept[name] = new
        _write_index(path, kept)
    return new


def unregister(*names: str) -> list[str]:
    """Take entries out of zoo/index.yaml; returns the names of those that were there."""
    path = index_file()
    with FileLock(f"{path}.lock"):
        kept = _read_index(path) if path.is_file() else {}
        gone = [name for name in names if kept.pop(name, None)]
        if gone:
            _write_index(path, kept)
    return gone


def _write_index(path: Path, kept: dict[str, Entry]) -> None:
    data = {n: e.model_dump(mode="json", exclude_defaults=True, exclude={"name"}) for n, e in kept.items()}
    write_text(path, INDEX_HEADER + yaml.safe_dump(data, sort_keys=False, width=120, allow_unicode=True))


def _describe(path: Path, largest: int | None) -> FileInfo:
    zoo = index_file().parent.resolve()
    path = path.resolve()
    if not path.is_relative_to(zoo):
        raise DDError(f"register: expected a file below {zoo}, got {path}; put it there first")
    if not path.is_file():
        raise DDError(f"register: there is no file {path}; train or place it first")
    size = path.stat().st_size
    if largest is not None and size > largest:
        raise DDError(f"register: {path.name} has {size / 1e6:.1f} MB, shipped files at most 10 MB; make it smaller")
    return FileInfo(path=path.relative_to(zoo).as_posix(), sha256=sha256_file(path), size=size)


# ------------------------------------------------------------------------------------------------------------ the files


def fetch(name: str) -> list[Path]:
    """Verified local files of an entry, and of the tokenizer or teacher that it needs; downloads what is missing."""
    if name in assets.ASSETS:
        return [assets.fetch_asset(assets.ASSETS[name])]
    found = entry(name)
    needed = [n for n in (found.tokenizer, found.teacher) if n]
    own = [path for file in found.files() for path in (local(file), *shards(file, local(file)))]
    placed = [assets.put_in_place(name, own[0])] if name in assets.PLACED else []
    return own + placed + [path for n in needed for path in fetch(n)]


def verify(name: str) -> list[Path]:
    """Check an entry's local files against their recorded hashes without any network. Raises DDError."""
    if name in assets.ASSETS:
        return [assets.verify_asset(assets.ASSETS[name])]
    return [
        local(file) if file.repo is None else hub.verify(file.hub_file(), file.sha256) for file in entry(name).files()
    ]


def is_here(found: Entry) -> bool:
    """Whether an entry's files are on this machine (their content is not read)."""
    folder = index_file().parent
    return all((hub.local_path(f.hub_file()) if f.repo else folder / f.path).is_file() for f in found.files())


def local(file: FileInfo) -> Path:
    """The verified file on this machine: shipped, cached, placed by the user, or fetched now."""
    if file.repo is not None:
        return hub.fetch(file.hub_file(), file.sha256)
    path = index_file().parent / file.path
    if not path.is_file():
        raise DDError(f"zoo/{file.path} is missing: restore it with 'git checkout -- zoo/{file.path}'")
    if file.sha256 and (found := sha256_file(path)) != file.sha256:
        raise DDError(
            f"zoo/{file.path}: expected SHA-256 {file.sha256[:12]}..., got {found[:12]}...: "
            "restore it from git, or register what you trained"
        )
    return path


def shards(file: FileInfo, index: Path) -> list[Path]:
    """The files that an index of shards (`*.safetensors.index.json`) names, beside it or fetched; none for other files.

    Raises DDError for an index that is none, or that names files elsewhere.
    """
    if not index.name.endswith(".index.json"):
        return []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("expected plain names of files in its weight_map")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DDError(f"{index} is no index of shards ({error}): fetch it again") from None
    here = {name: index.with_name(name) for name in names}
    others = {name: file.model_copy(update={"path": str(PurePosixPath(file.path).with_name(name))}) for name in names}
    return [path if path.is_file() else local(others[name]) for name, path in here.items()]


def weights_path(entry: Entry, own: str | os.PathLike[str] | None, role: str) -> Path:
    """Where an entry's weights are read from: a path given by the user wins over the zoo.

    own: a file (the weights of a teacher or student), or a folder that holds them under their official name, or as
    `<role>.safetensors`, `.pt` or `.pth`; for what a folder lacks, the zoo is asked.
    """
    if own is None:
        return local(entry.file)
    folder = Path(own).expanduser()
    if folder.is_file():
        return folder if role != "tokenizer" else local(entry.file)
    if not folder.is_dir():
        raise DDError(
            f"expected a checkpoint or a folder at {folder} (teacher.path), but there is nothing: check the path"
        )
    names = [Path(entry.file.path).name, *(f"{role}{suffix}" for suffix in (".safetensors", ".pt", ".pth"))]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if role == "tokenizer":
        return local(entry.file)
    raise DDError(f"expected one of {', '.join(names)} in {folder}, found none: place the {role}'s weights there")
