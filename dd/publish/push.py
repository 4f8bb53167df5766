"""An exported folder into a repository of the Hugging Face hub, as one commit.

Large files go first, then the commit; what arrived before a break is not sent again, and nobody sees half a model.
HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE work as everywhere on the hub.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd.checkpoints.exported import COMPONENTS, INDEX, WEIGHTS, is_repository
from dd.errors import DDError, TemporaryError
from dd.publish.space import APP, REQUIREMENTS

log = logging.getLogger(__name__)
PARTS = (*COMPONENTS, "teacher")
FILES = (
    INDEX,
    "README.md",
    "samples.png",
    APP,
    REQUIREMENTS,
    *(f"{part}/{name}" for part in PARTS for name in ("config.json", WEIGHTS)),
)
ADVICE = {
    401: "log in with `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there: make one with write access to this owner",
    404: "check the owner's name, and that the token may write there",
    409: "somebody else is changing the repository: try again",
    413: "the hub refuses files of this size",
}


@dataclass(frozen=True)
class Upload:
    """One file of a push: its name in the repository, and where it lies."""

    name: str
    path: Path

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size


def plan(folder: Path) -> list[Upload]:
    """The files of an exported folder that a push sends; others in it are left alone. Raises DDError for no export."""
    found = [Upload(name, folder / name) for name in FILES if (folder / name).is_file()]
    names = {upload.name for upload in found}
    for name in (INDEX, "README.md"):
        if name not in names:
            raise DDError(f"push: expected an exported model in {folder}, {name} is missing; run 'dd-cli export' first")
    return found


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Create the repository if need be and commit the folder's files; returns the commit's address.

    Raises DDError for a name, a token or a card that the hub refuses, TemporaryError where another try may help.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    check_repository(repo)
    uploads = plan(folder)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise DDError("push: HF_HUB_OFFLINE is set: unset it")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    with _explained(repo, api.endpoint):
        api.create_repo(repo, private=private or None, exist_ok=True)
        sent = {upload.name for upload in uploads}
        stale = [name for name in api.list_repo_files(repo) if name in FILES and name not in sent]
        operations: list[Any] = [CommitOperationAdd(upload.name, upload.path) for upload in uploads]
        operations += [CommitOperationDelete(name) for name in stale]
        return str(api.create_commit(repo, operations, commit_message="Upload with dd").commit_url)


def check_repository(repo: str) -> None:
    """Raise DDError unless this is owner/name as the hub has them."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
        good = is_repository(repo)
    except HFValidationError:
        good = False
    if not good:
        raise DDError(f"push: expected a repository as owner/name (letters, digits, '-', '_', '.'), got '{repo}'")


class _explained:  # noqa: N801 - used like a function
    """The hub's refusals and broken connections as one line."""

    def __init__(self, repo: str, endpoint: str) -> None:
        self.repo, self.endpoint = repo, endpoint

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, DDError) or not isinstance(error, Exception):
            return
        for cause in _causes(error):
            status = getattr(getattr(cause, "response", None), "status_code", None)
            if status in ADVICE:
                raise DDError(f"push: {self.endpoint} answered {status} for {self.repo}: {ADVICE[status]}") from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, ValueError) and "metadata" in reason:
            raise DDError(f"push: the hub refuses the card's metadata ({reason}): mend README.md") from error
        raise TemporaryError(
            f"push: {self.repo} was not committed ({reason}): push again, what arrived is not sent twice"
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
