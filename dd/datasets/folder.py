"""A folder of pictures as a data set: checked, split, packed. `dd-cli dataset check` and the pipeline read by this.

Memory holds a few pictures at a time. The same bytes never lie on both sides of the split.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dd.datasets.listing import File, Listing, Skipped, list_folder
from dd.datasets.packed import Packer
from dd.datasets.picture import Picture, UnreadableError, read_picture
from dd.errors import DDError
from dd.system.files import sha256_file, write_text
from dd.system.progress import progress

log = logging.getLogger(__name__)
THREADS = 2
AHEAD = 64  # files that are read before they are asked for
FEW = 1000  # pictures below which a plain warning is due
FEW_IN_CLASS = 10
NAMED = 5  # files that a one-line message names


@dataclass
class Survey:
    """What a folder holds, every file opened. digests: SHA-256 of each file that may be a picture, by its name.

    empty: classes of which no picture can be read; they are left out.
    """

    listing: Listing
    digests: dict[str, str]
    skipped: list[Skipped]
    empty: list[str] = field(default_factory=list)
    read: list[File] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    sides: list[tuple[int, int]] = field(default_factory=list)
    grey: int = 0
    plain_border: int = 0

    @property
    def classes(self) -> dict[str, int]:
        """Pictures of each class."""
        counts = Counter(file.label for file in self.read)
        return {name: counts[label] for label, name in enumerate(self.listing.classes)}

    @property
    def duplicates(self) -> list[list[str]]:
        """Names of pictures that are byte-equal, group by group."""
        groups = defaultdict(list)
        for file in self.read:
            groups[self.digests[file.name]].append(file.name)
        return [names for names in groups.values() if len(names) > 1]

    @property
    def colour(self) -> bool:
        """Whether more than one picture in fifty has a colour."""
        return self.grey < 0.98 * len(self.read)

    def report(self) -> dict[str, Any]:
        """As JSON: the keys of `dd-cli dataset check --json`."""
        sides = sorted(self.sides, key=min)
        named = {"smallest": sides[0], "median": sides[len(sides) // 2], "largest": sides[-1]} if sides else {}
        return {
            "classes": self.classes,
            "captions": len(self.read) if self.listing.captioned else 0,
            "read": len(self.read),
            "skipped": [{"file": one.file, "reason": one.reason} for one in self.skipped],
            "duplicates": self.duplicates,
            "sizes": named,
            "modes": dict(self.modes.most_common()),
            "kinds": dict(self.kinds.most_common()),
            "colour": self.colour,
            "warnings": self.warnings(),
        }

    def warnings(self) -> list[str]:
        """What does not hinder but should be known, in words."""
        found = [*self.listing.warnings]
        if lost := [one for one in self.skipped if one.picture]:
            found.append(f"{len(lost)} picture(s) cannot be read: {_some(f'{o.file} ({o.reason})' for o in lost)}")
        if groups := self.duplicates:
            extra = sum(map(len, groups)) - len(groups)
            found.append(f"{extra} picture(s) are copies of others, such as {' = '.join(groups[0][:3])}")
        counts = self.classes
        if single := [name for name, count in counts.items() if count == 1]:
            found.append(f"one picture only, kept for training: class {_some(single)}")
        if self.read and (problem := self.nothing_to_hold_out()):
            found.append(problem)
        if self.empty:
            found.append(f"no readable picture, left out: class {_some(self.empty)}")
        if counts and max(counts.values()) > 20 * min(counts.values()):
            least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
            found.append(f"classes of very different size: {least} {counts[least]}, {most} {counts[most]}")
        if len(counts) > 1 and (typical := sorted(counts.values())[len(counts) // 2]) < FEW_IN_CLASS:
            found.append(
                f"{len(counts)} classes of about {typical} picture(s): too few to learn what a class is; make fewer, "
                "larger classes, or put all pictures into one folder"
            )
        folded = Counter(name.casefold() for name in counts)
        if twins := [name for name in counts if folded[name.casefold()] > 1]:
            found.append(f"classes that differ in upper and lower case only: {_some(twins)}")
        if len(self.read) < FEW:
            found.append(
                f"{len(self.read)} pictures are few: a model will repeat them more than vary them; expect a usable one "
                f"from about {FEW} on"
            )
        return found

    def refuse(self) -> str | None:
        """Why this cannot become a data set; None if it can."""
        if not self.read:
            reasons = _some(f"{one.file}: {one.reason}" for one in self.skipped if one.picture) or "no picture file"
            return f"no readable image in {self.listing.root} ({reasons})"
        return None

    def nothing_to_hold_out(self) -> str | None:
        """Why no picture can be kept for testing; None if some can."""
        if held_out(self.read, self.digests, 0.1):
            return None
        return (
            f"no class has two different pictures, of which one could be held out for testing ({len(self.read)} "
            f"picture(s) in {len(self.classes)} class(es)): give a test folder, or put all pictures into one folder"
        )

    def line(self) -> str:
        """One line: how many were read, of which kinds, how many were skipped and why."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
        reasons = Counter(one.reason.split(" (")[0].split(":")[0] for one in self.skipped)
        why = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        return f"read {len(self.read)} ({kinds}), skipped {len(self.skipped)}{f' ({why})' if why else ''}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


# -------------------------------------------------------------------------------------------------------------- reading


def survey(root: Path, size: int = 32) -> Survey:
    """Open every file of a folder and keep none of it."""
    listing = list_folder(root)
    found = Survey(listing, {}, list(listing.skipped))
    bar = progress(_each(listing.files, size, True, hashes=True), unit="files", label="read")
    for file, digest, result in bar:
        found.digests[file.name] = digest
        if not isinstance(result, Picture):
            found.skipped.append(result)
            continue
        found.read.append(file)
        found.kinds[result.kind] += 1
        found.modes[result.mode] += 1
        found.sides.append((result.width, result.height))
        found.grey += result.grey
        found.plain_border += result.border
    _drop_empty_classes(found)
    return found


def _drop_empty_classes(found: Survey) -> None:
    """Leave classes without a readable picture out and number the others anew."""
    listing, used = found.listing, sorted({file.label for file in found.read})
    found.empty = [name for label, name in enumerate(listing.classes) if label not in used]
    if found.empty and found.read:
        number = {label: place for place, label in enumerate(used)}
        found.listing = replace(listing, classes=tuple(listing.classes[label] for label in used))
        found.read = [replace(file, label=number[file.label]) for file in found.read]


def _each(
    files: list[File], size: int, crop: bool, hashes: bool = False
) -> Iterator[tuple[File, str, Picture | Skipped]]:
    """Files in order with SHA-256 (if wanted) and picture; decoding goes on in threads, a little ahead."""

    def work(file: File) -> tuple[File, str, Picture | Skipped]:
        try:
            return file, sha256_file(file.path) if hashes else "", read_picture(file.path, size, crop)
        except UnreadableError as error:
            return file, sha256_file(file.path) if hashes else "", Skipped(file.name, str(error), error.picture)
        except OSError as error:
            return file, "", Skipped(file.name, f"cannot be opened ({error.strerror})", picture=True)

    waiting: deque[Future[tuple[File, str, Picture | Skipped]]] = deque()
    with ThreadPoolExecutor(THREADS, "pictures") as pool:
        try:
            for file in files:
                waiting.append(pool.submit(work, file))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def folder_digest(root: Path) -> str:
    """SHA-256 of the names and contents of a folder's pictures and captions: what a data set depends on.

    Nothing is decoded. What is passed over (hidden files, say) does not count.
    """
    listing = list_folder(root)
    digest = hashlib.sha256()
    with ThreadPoolExecutor(THREADS, "hashes") as pool:
        for file, found in zip(listing.files, pool.map(lambda f: sha256_file(f.path), listing.files), strict=True):
            digest.update(f"{file.name}\0{found}\0{file.caption or ''}\0".encode())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------------ splitting


def held_out(files: list[File], digests: dict[str, str], share: float) -> set[str]:
    """Names of the files for testing: about `share` of every class, chosen by content, byte-equal ones together.

    A class keeps at least one picture for training; one with a single picture has none for testing.
    """
    side: dict[str, bool] = {}  # of each content: held out or not
    members: dict[int, dict[str, int]] = defaultdict(Counter)
    for file in files:
        members[file.label][digests[file.name]] += 1
    for label in sorted(members):
        contents = members[label]
        wanted = max(1, round(share * sum(contents.values())))
        taken = sum(count for digest, count in contents.items() if side.get(digest))
        left = [digest for digest in sorted(contents) if digest not in side]
        free = len(left) - (0 if any(not side[d] for d in contents if d in side) else 1)
        for digest in left:
            take = taken < wanted and free > 0
            side[digest] = take
            taken, free = taken + contents[digest] * take, free - take
    return {file.name for file in files if side[digests[file.name]]}


def pack_folder(
    root: Path,
    target: Path,
    size: int,
    crop: bool = True,
    on_error: str = "refuse",
    test_folder: Path | None = None,
    test_share: float = 0.1,
) -> dict[str, int]:
    """Class folders (or captioned pictures) as packed data sets `train` and `test` below `target`; returns their sizes.

    on_error 'refuse' raises DDError that names the first unreadable pictures, 'skip' leaves them out; the log says how
    many files of which kinds were read and skipped. Raises DDError where there is nothing to train on.
    """
    found = checked(root, on_error)
    if test_folder is None:
        if problem := found.nothing_to_hold_out():
            raise DDError(problem)
        apart = held_out(found.read, found.digests, test_share)
        parts = {
            "train": [file for file in found.read if file.name not in apart],
            "test": [file for file in found.read if file.name in apart],
        }
    else:
        other = checked(test_folder, on_error)
        same_classes(found, other)
        known = {other.digests[file.name] for file in other.read}
        train = [file for file in found.read if found.digests[file.name] not in known]
        if len(train) < len(found.read):
            log.warning("%d pictures lie in the test folder too: left out of training", len(found.read) - len(train))
        parts = {"train": train, "test": other.read}
    for name, files in parts.items():
        if not files:
            raise DDError(f"no picture is left for {name}ing: give other folders, or another test_share")
        _pack(files, target / name, size, crop, found.listing.classes)
    return {name: len(files) for name, files in parts.items()}


def same_classes(found: Survey, other: Survey) -> None:
    """Raise DDError if a test folder has other classes than the training folder."""
    mine, theirs = found.listing.classes, other.listing.classes
    if mine != theirs:
        raise DDError(
            f"test_folder has classes {_some(theirs)} ({len(theirs)}), expected {_some(mine)} ({len(mine)}): "
            "rename or add folders"
        )


def checked(root: Path, on_error: str = "skip") -> Survey:
    """A survey that can be used, its warnings logged. Raises DDError."""
    found = survey(root)
    if problem := found.refuse():
        raise DDError(problem)
    lost = [one for one in found.skipped if one.picture]
    if lost and on_error != "skip":
        raise DDError(
            f"{len(lost)} unreadable image file(s) in {root}: {_some(f'{o.file} ({o.reason})' for o in lost)}; "
            "remove them or set unreadable: skip"
        )
    log.info("%s: %s", root, found.line())
    for warning in found.warnings():
        log.warning("%s", warning)
    return found


def _pack(files: list[File], folder: Path, size: int, crop: bool, classes: tuple[str, ...]) -> None:
    captions = []
    with Packer(folder, size, classes) as packer:
        for file, _, result in progress(_each(files, size, crop), unit="pictures", label=f"pack {folder.name}"):
            if isinstance(result, Skipped):
                raise DDError(f"{file.path} changed while it was read ({result.reason}): run the command again")
            packer.add(result.pixels, file.label)
            captions.append(file.caption)
    if not classes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"caption": pa.array(captions, pa.string())}), folder / "captions.parquet")


def write_digest(root: Path, test_folder: Path | None, target: Path) -> str:
    """Write the digest of a data set's folders, for DVC to compare; returns it."""
    parts = [folder_digest(path) for path in (root, test_folder) if path is not None]
    write_text(target, "\n".join(parts) + "\n")
    return hashlib.sha256("".join(parts).encode()).hexdigest()
