"""Files that appear under their name only when they are whole, and the hashes that prove it. Knows no torch."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dd.errors import DDError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
_UMASK = os.umask(0)
os.umask(_UMASK)


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary name beside `path`; what is written there takes the final name when the block ends without error.

    The bytes are on disk before the rename, so neither a crash nor a full disk leaves half a file under `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.chmod(temporary, 0o666 & ~_UMASK)  # safetensors makes files that only their owner may read
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DDError(_write_problem(path, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_problem(path: Path, error: OSError) -> str:
    if error.errno in NO_SPACE:
        return f"no space left on the disk while writing {path}: free some space and run the command again"
    if error.errno in NO_PERMISSION:
        return f"no permission to write {path}: make {path.parent} writable or choose another folder"
    return f"cannot write {path}: {error.strerror or error}"


@contextmanager
def explained() -> Iterator[None]:
    """What the disk refuses inside, to whatever library, as a DDError: no space, no permission. Nothing else."""
    try:
        yield
    except OSError as error:
        what = f" ({error.filename})" if error.filename else ""
        if error.errno in NO_SPACE:
            raise DDError(f"no space left on the disk{what}: free some space and run the command again") from error
        if error.errno in NO_PERMISSION:
            raise DDError(f"no permission{what}: make it readable and writable, or choose another folder") from error
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write a whole text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def publish(folder: Path, target: Path) -> None:
    """Give a finished folder its final name; what stood there before goes away only after that, or comes back.

    A kill in between leaves one of the two whole: `recover` puts the former back.
    """
    aside = _aside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        recover(target)
        shutil.rmtree(aside, ignore_errors=True)
        if target.exists():
            os.replace(target, aside)
        os.replace(folder, target)
    except OSError as error:
        recover(target)
        raise DDError(_write_problem(target, error)) from error
    shutil.rmtree(aside, ignore_errors=True)


def recover(target: Path) -> None:
    """Undo a `publish` that was killed between its two renames."""
    if _aside(target).is_dir() and not target.exists():
        os.replace(_aside(target), target)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")
