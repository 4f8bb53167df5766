"""What lies in a folder of pictures: classes or captions, files, and what is passed over with the reason.

Three forms: folders of classes (the folder's name is the class), pictures without folders (one class), and pictures
with captions (`metadata.csv` or `metadata.jsonl` with the columns `file_name` and `text`, as the Hugging Face hub's
ImageFolder has them). Links are followed; circles of links end.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dd.errors import DDError

LITTER = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
METADATA = ("metadata.csv", "metadata.jsonl")
CAPTION_COLUMNS = ("text", "caption")
SPLITS = {"train", "test", "val", "valid", "validation"}


@dataclass(frozen=True)
class File:
    """A file that may be a picture: its name below the folder, its place, its class, its caption."""

    name: str
    path: Path
    label: int
    caption: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A file (or folder) that is passed over. picture: it is one, or ought to be."""

    file: str
    reason: str
    picture: bool = False


@dataclass
class Listing:
    """Files in the order of their names; classes: none where pictures have captions."""

    root: Path
    classes: tuple[str, ...]
    files: list[File]
    skipped: list[Skipped]
    warnings: list[str] = field(default_factory=list)

    @property
    def captioned(self) -> bool:
        """Whether pictures have captions instead of classes."""
        return not self.classes


def list_folder(root: Path) -> Listing:
    """Look at a folder without opening any picture. Raises DDError if it is none or holds nothing."""
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise DDError(f"expected a folder of class folders at {root}, found {what}: check the path")
    skipped: list[Skipped] = []
    entries = [path for path in sorted(root.iterdir()) if not _litter(path, root, skipped)]
    warnings: list[str] = []
    metadata = next((path for path in entries if path.name.lower() in METADATA), None)
    if metadata is not None and (captions := read_metadata(metadata, warnings)) is not None:
        return _captioned(root, metadata, captions, skipped, warnings)
    folders = [path for path in entries if path.is_dir()]
    if not folders:
        files = [File(name, path, 0) for name, path in sorted(_walk(root, root, skipped))]
        if not files:
            raise DDError(
                f"{root} has no class folders; expected {root.name}/<class>/<image>.png and so on, or "
                f"{root.name}/metadata.csv with the columns file_name and text"
            )
        warnings.append("no class folders: all pictures are of one class")
        return Listing(root, (root.resolve().name,), files, skipped, warnings)
    for path in entries:
        if not path.is_dir():
            skipped.append(Skipped(path.name, "lies outside the class folders"))
    classes = tuple(path.name for path in folders)
    if len(classes) > 1 and {name.lower() for name in classes} <= SPLITS:
        warnings.append(
            f"{' and '.join(classes)} look like splits, not like classes: name one of them as the folder, the other as "
            "--test-folder"
        )
    return _of_classes(root, classes, skipped, warnings)


def _of_classes(root: Path, classes: tuple[str, ...], skipped: list[Skipped], warnings: list[str]) -> Listing:
    files: list[File] = []
    kept: list[str] = []
    for name in classes:
        found = list(_walk(root / name, root, skipped))
        if not found:
            warnings.append(f"class folder '{name}' holds no files and is left out")
            continue
        files += [File(file, path, len(kept)) for file, path in sorted(found)]
        kept.append(name)
    if not files:
        raise DDError(f"class folder '{classes[0]}' holds no images, nor does any other of {root}: check the path")
    return Listing(root, tuple(kept), files, skipped, warnings)


def _walk(folder: Path, root: Path, skipped: list[Skipped]) -> Iterator[tuple[str, Path]]:
    """All files below a folder, by name; a real folder that several links name is read once."""
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        if (real := os.path.realpath(place)) in seen:
            skipped.append(Skipped(_name(place, root), "a link to a folder that was read already"))
            continue
        seen.add(real)
        try:
            entries = sorted(place.iterdir())
        except OSError as error:
            skipped.append(Skipped(_name(place, root), f"cannot be opened ({error.strerror})", picture=True))
            continue
        for path in entries:
            if _litter(path, root, skipped):
                continue
            if path.is_dir():
                waiting.append(path)
            elif path.is_file():
                yield _name(path, root), path
            else:
                what = "a link to nothing" if path.is_symlink() else "neither a file nor a folder"
                skipped.append(Skipped(_name(path, root), what, picture=path.is_symlink()))


def _litter(path: Path, root: Path, skipped: list[Skipped]) -> bool:
    """Whether it is hidden, or left behind by an operating system; it is then noted."""
    name = path.name.lower()
    if name.startswith("._") or name in LITTER or name == ".ds_store":
        skipped.append(Skipped(_name(path, root), "left behind by an operating system"))
    elif name.startswith("."):
        skipped.append(Skipped(_name(path, root), "hidden"))
    else:
        return False
    return True


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


# ------------------------------------------------------------------------------------------------------------- captions


def read_metadata(path: Path, warnings: list[str]) -> list[tuple[str, str]] | None:
    """(file name, caption) of each row; None, with a warning, where there is no column of captions."""
    try:
        rows = _jsonl(path) if path.suffix.lower() == ".jsonl" else _csv(path)
    except UnicodeDecodeError:
        raise DDError(f"{path}: expected UTF-8 text, got another encoding; convert it") from None
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if "file_name" not in columns:
        raise DDError(f"{path}: expected a column 'file_name', got {', '.join(columns) or 'none'}; rename one")
    column = next((name for name in CAPTION_COLUMNS if name in columns), None)
    if column is None:
        warnings.append(f"{path.name} has no column {' or '.join(CAPTION_COLUMNS)}: it is left out")
        return None
    return [(str(row.get("file_name") or ""), str(row.get(column) or "").strip()) for row in rows]


def _csv(path: Path) -> list[dict[str, object]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [{key: value for key, value in row.items() if key} for row in csv.DictReader(file)]


def _jsonl(path: Path) -> list[dict[str, object]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise DDError(f"{path}: line {number} is no JSON object; expected one a line")
        rows.append(row)
    return rows


def _captioned(
    root: Path, metadata: Path, captions: list[tuple[str, str]], skipped: list[Skipped], warnings: list[str]
) -> Listing:
    files: dict[str, File] = {}
    named: set[str] = set()
    for name, caption in captions:
        named.add(name)
        parts = PurePosixPath(name.replace("\\", "/"))
        path = root / parts
        if not name or parts.is_absolute() or ".." in parts.parts:
            skipped.append(Skipped(name, f"{metadata.name} names a file outside the folder", picture=True))
        elif not path.is_file():
            skipped.append(Skipped(name, f"named by {metadata.name}, but not there", picture=True))
        elif not caption:
            skipped.append(Skipped(name, "its caption is empty"))
        elif str(parts) in files:
            skipped.append(Skipped(name, "a second caption of the same file"))
        else:
            files[str(parts)] = File(str(parts), path, 0, caption)
    for name, path in _walk(root, root, []):
        if name not in named and path != metadata:
            skipped.append(Skipped(name, f"no caption in {metadata.name}"))
    if not files:
        raise DDError(f"{metadata} names no picture that is there; expected file names below {root.name}")
    return Listing(root, (), [files[name] for name in sorted(files)], skipped, warnings)
