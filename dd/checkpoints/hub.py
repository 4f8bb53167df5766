"""Files of the Hugging Face hub: resumed, retried, pinned, and checked before they get their name.

A file lies at `<cache>/<repo>/<path>`; until its SHA-256 is verified it is `<name>.<revision>.part` beside it, which
the next attempt, also of another process, continues. The first fetch records revision, SHA-256 and size in
`zoo/hub.lock.yaml`; from then on exactly those bytes are accepted. A file that the user puts at that place is used
without any network, and so is one that the hub's own cache holds.

Environment: HF_ENDPOINT (a mirror), HF_HUB_OFFLINE=1, HF_TOKEN and HF_HOME as everywhere on the hub; DD_CACHE moves the
cache (default ~/.cache/dd), DD_HUB_LOCK the lock file.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from dd.errors import DDError, TemporaryError
from dd.system.files import sha256_file, write_text
from dd.system.progress import Progress, progress

logger = logging.getLogger(__name__)

DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further attempt
TIMEOUT = 20.0  # seconds for the hub's answer to a question about a file
LOCK_HEADER = "# Written by `dd-cli zoo fetch`: what was fetched first is what is accepted ever after.\n"
NOT_WORTH_A_RETRY = {400, 401, 404, 405, 410, 451}


@dataclass(frozen=True)
class HubFile:
    """A file on the hub. revision: commit, tag or branch asked for when nothing is recorded yet."""

    repo: str
    path: str
    revision: str = "main"

    @property
    def key(self) -> str:
        """Its name in the lock file and in messages."""
        return f"{self.repo}/{self.path}"


@dataclass(frozen=True)
class Record:
    """What the lock file knows about a file; revision is None for one that was put in place by hand."""

    revision: str | None
    sha256: str
    size: int


@dataclass(frozen=True)
class _Remote:
    """The hub's answer about a file. digest is the SHA-256 of large files, the git blob id of small ones."""

    url: str
    revision: str
    digest: str
    size: int


# --------------------------------------------------------------------------------------------- places and the lock file


def cache_dir() -> Path:
    """Folder of fetched files."""
    base = os.environ.get("DD_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dd"
    return Path(base).expanduser() / "hub"


def local_path(file: HubFile) -> Path:
    """Where a file lies once fetched, and where the user may put it."""
    return cache_dir() / file.repo / file.path


def lock_file() -> Path:
    """The YAML file with the recorded hashes."""
    from dd.config import project_root

    return Path(os.environ.get("DD_HUB_LOCK") or project_root() / "zoo" / "hub.lock.yaml")


def recorded(file: HubFile) -> Record | None:
    """The lock file's record of a file, if there is one."""
    return _read_lock().get(file.key)


def _read_lock() -> dict[str, Record]:
    path = lock_file()
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return {key: Record(**value) for key, value in data.items()}
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise DDError(f"{path} is damaged ({' '.join(str(error).split())}): restore it from git") from None


def _record(file: HubFile, record: Record) -> None:
    path = lock_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        records = _read_lock() | {file.key: record}
        content = {key: vars(records[key]) for key in sorted(records)}
        write_text(path, LOCK_HEADER + yaml.safe_dump(content, sort_keys=False))


# ------------------------------------------------------------------------------------------------------------- fetching


def fetch(file: HubFile, sha256: str | None = None, delays: Sequence[float] = DELAYS) -> Path:
    """Path of the verified local copy of a hub file, downloaded if needed.

    sha256: what an index says the bytes must be; otherwise what the lock file recorded, otherwise what the hub says.
    Raises DDError if the file cannot be had; a wrong or incomplete file is never left under the final name.
    """
    record = recorded(file)
    expected = sha256 or (record.sha256 if record else None)
    if (found := _have(file, expected)) is not None:
        return found
    if _is_true(os.environ.get("HF_HUB_OFFLINE")):
        raise DDError(f"{file.key} is not in the cache and HF_HUB_OFFLINE is set: unset it, or {_place_it(file)}")
    target = local_path(file)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            return _have(file, expected) or _fetch_with_retries(file, expected, delays)
    except OSError as error:
        raise DDError(f"cannot write to {target.parent} ({error.strerror or error}): set DD_CACHE") from error


def verify(file: HubFile, sha256: str | None = None) -> Path:
    """Path of the local copy if it has the recorded bytes. Raises DDError otherwise."""
    record = recorded(file)
    expected = sha256 or (record.sha256 if record else None)
    target = local_path(file)
    if not target.is_file():
        raise DDError(f"{file.key} is not at {target}: run 'dd-cli zoo fetch'")
    found = sha256_file(target)
    if expected and found != expected:
        raise DDError(f"{target}: expected SHA-256 {expected[:12]}..., got {found[:12]}...: fetch it again")
    return target


def _have(file: HubFile, expected: str | None) -> Path | None:
    """A copy with the right bytes: in our cache (also one placed by hand) or in the hub's own cache."""
    target = local_path(file)
    for path in (target, _hub_cache(file)):
        if path is None or not path.is_file():
            continue
        found = sha256_file(path)
        if expected is None:
            logger.warning("%s: no hash is known, recording that of %s", file.key, path)
        elif found != expected:
            logger.warning("%s has SHA-256 %s..., not %s...: not used", path, found[:12], expected[:12])
            continue
        if recorded(file) is None:
            _record(file, Record(None, found, path.stat().st_size))
        return path
    return None


def _hub_cache(file: HubFile) -> Path | None:
    """The file in huggingface_hub's own cache, if some other program fetched it."""
    from huggingface_hub import try_to_load_from_cache

    record = recorded(file)
    revision = (record.revision if record else None) or file.revision
    found = try_to_load_from_cache(file.repo, file.path, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _fetch_with_retries(file: HubFile, expected: str | None, delays: Sequence[float]) -> Path:
    reason = ""
    for delay in (0.0, *delays):
        if delay:
            logger.warning("%s: %s; next attempt in %g s", file.key, reason, delay)
            time.sleep(delay)
        try:
            return _attempt(file, expected)
        except DDError:
            raise
        except Exception as error:  # the hub's client raises errors of its HTTP library, which changes between versions
            _raise_if_final(file, error)
            reason = _one_line(error)
    raise TemporaryError(f"cannot fetch {file.key} from {_endpoint()} ({reason}): {_ways_out(file)}")


def _attempt(file: HubFile, expected: str | None) -> Path:
    """Ask the hub, continue or start the download, check every byte, rename."""
    record = recorded(file)
    remote = _ask(file, (record.revision if record else None) or file.revision)
    if expected and len(remote.digest) == 64 and remote.digest != expected:
        raise DDError(
            f"{file.key} on {_endpoint()} has SHA-256 {remote.digest[:12]}..., recorded is {expected[:12]}...: another "
            f"file took its place; place the recorded one at {local_path(file)} or remove its entry from {lock_file()}"
        )
    target = local_path(file)
    part = target.with_name(f"{target.name}.{remote.revision[:12]}.part")
    _download(file, remote, part)
    found = sha256_file(part)
    if found != (expected or found) or not _matches(part, found, remote.digest):
        part.unlink()
        wanted = expected or remote.digest
        raise _WrongBytesError(f"expected the hash {wanted[:12]}..., got {found[:12]}...")
    with open(part, "rb+") as handle:
        os.fsync(handle.fileno())
    os.replace(part, target)
    if record is None or record.revision is None:
        _record(file, Record(remote.revision, found, remote.size))
    logger.info("fetched %s at %s (%.1f MB)", file.key, remote.revision[:12], remote.size / 1e6)
    return target


class _WrongBytesError(Exception):
    """A complete file with another content: worth another attempt, and never kept."""


def _ask(file: HubFile, revision: str) -> _Remote:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(file.repo, file.path, revision=revision, endpoint=_endpoint())
    answer = get_hf_file_metadata(url, timeout=TIMEOUT)
    if not answer.commit_hash or answer.size is None or not answer.etag:
        raise DDError(
            f"{_endpoint()} does not answer like a hub (no revision or size for {file.key}): check HF_ENDPOINT"
        )
    pinned = hf_hub_url(file.repo, file.path, revision=answer.commit_hash, endpoint=_endpoint())
    return _Remote(pinned, answer.commit_hash, answer.etag, answer.size)


def _download(file: HubFile, remote: _Remote, part: Path) -> None:
    """Append the missing bytes to `part`; what an earlier attempt left is kept."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    part.touch()
    done = part.stat().st_size
    if done > remote.size:
        part.write_bytes(b"")
        done = 0
    free = shutil.disk_usage(part.parent).free
    if free < remote.size - done:
        raise DDError(
            f"{file.key} needs {(remote.size - done) / 1e6:,.1f} MB more in {part.parent}, "
            f"{free / 1e6:,.1f} MB are free: free some space or set DD_CACHE"
        )
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    bar: Progress[Any] = progress(remote.size >> 20, unit="MiB", label=Path(file.path).name, done=done >> 20)
    with bar, open(part, "rb+") as handle, _quiet():
        handle.seek(done)
        counted: Any = _Counted(handle, bar)
        http_get(remote.url, counted, resume_size=done, headers=headers, expected_size=remote.size)


class _Counted:
    """A file that reports what is written to it; the hub's client also rewinds it when a server ignores ranges."""

    def __init__(self, handle: io.BufferedRandom, bar: Progress[Any]) -> None:
        self.handle, self.bar = handle, bar
        self.seek, self.tell, self.truncate = handle.seek, handle.tell, handle.truncate

    def write(self, data: bytes) -> int:
        """Write, and move the bar by the mebibytes that this completes."""
        written = self.handle.write(data)
        self.bar.update(max((self.handle.tell() >> 20) - self.bar.step, 0))
        return written


class _quiet:  # noqa: N801 - used like a function
    """The hub client's own bar and warnings off: this module reports."""

    def __enter__(self) -> None:
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars

        self.logger = logging.getLogger("huggingface_hub")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)
        self.restore = not are_progress_bars_disabled()
        disable_progress_bars()

    def __exit__(self, *_: object) -> None:
        from huggingface_hub.utils import enable_progress_bars

        self.logger.setLevel(self.level)
        if self.restore:
            enable_progress_bars()


def _matches(path: Path, sha256: str, digest: str) -> bool:
    """Whether a file has the hub's digest: SHA-256 (64 digits) or git blob id (40); anything else says nothing."""
    if len(digest) == 64:
        return sha256 == digest
    if len(digest) == 40:
        blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                blob.update(chunk)
        return blob.hexdigest() == digest
    return True


# --------------------------------------------------------------------------------------------------- what went wrong


def _raise_if_final(file: HubFile, error: Exception) -> None:
    """Raise DDError for problems that another attempt cannot solve."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        raise DDError(f"no space left in {cache_dir()} for {file.key}: free some space or set DD_CACHE") from error
    if isinstance(error, PermissionError):
        raise DDError(f"no permission to write {local_path(file)}: set DD_CACHE to another folder") from error
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in NOT_WORTH_A_RETRY:
        why = "set HF_TOKEN if the repository is private or gated" if status == 401 else "check the repository and path"
        raise DDError(f"{_endpoint()} answered {status} for {file.key}: {why}, or {_place_it(file)}") from error


def _place_it(file: HubFile) -> str:
    return f"place the file at {local_path(file)}"


def _ways_out(file: HubFile) -> str:
    return f"check the network, set HF_ENDPOINT to a mirror, or {_place_it(file)}"


def _endpoint() -> str:
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _is_true(value: str | None) -> bool:
    return (value or "").strip().upper() in {"1", "ON", "YES", "TRUE"}


def _one_line(error: Exception) -> str:
    """What went wrong, without the library's advice."""
    if status := getattr(getattr(error, "response", None), "status_code", None):
        return f"it answered {status}"
    text = " ".join(str(error).split()) or type(error).__name__
    if text.startswith("Consistency check failed"):
        return "the answer was cut short"
    return text if len(text) <= 160 else f"{text[:157]}..."
