"""Downloads against a hub that misbehaves: each ends in the right file or a clear error, never in a wrong file."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dd.checkpoints import hub
from dd.checkpoints.hub import HubFile, fetch, local_path, recorded, verify
from dd.errors import DDError, TemporaryError
from tests.helpers.hub_server import COMMIT, Hub

CONTENT = bytes(range(256)) * 4096  # 1 MiB
FILE = HubFile("someone/models", "weights/model.pth")
SHA = hashlib.sha256(CONTENT).hexdigest()
QUICK = (0.01,) * 5


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub with one file, an empty cache, an empty lock file."""
    served = Hub({FILE.key: CONTENT})
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("DD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DD_HUB_LOCK", str(tmp_path / "zoo" / "hub.lock.yaml"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read from the environment when it was imported
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr(hub, "_hub_cache", lambda _: None)
    yield served
    served.close()


def whole(path: Path) -> bool:
    """The right bytes under the right name, nothing unfinished beside it."""
    assert path == local_path(FILE)
    assert sorted(p.name for p in path.parent.iterdir() if p.suffix != ".lock") == ["model.pth"]
    return path.read_bytes() == CONTENT


def nothing_under_final_name() -> bool:
    return not local_path(FILE).exists()


def test_plain_fetch_records_revision_and_hash(server):
    assert whole(fetch(FILE))
    record = recorded(FILE)
    assert record is not None
    assert (record.revision, record.sha256, record.size) == (COMMIT, SHA, len(CONTENT))
    assert server.revisions == ["main", COMMIT]  # asked for a branch, downloaded a commit
    assert fetch(FILE) == verify(FILE)
    assert len(server.gets) == 1


FAULTS = {
    "dropped twice": ["drop:300000", "drop:200000"],
    "dropped at once": ["drop:0"],
    "truncated": ["truncate:1000"],
    "5xx": ["500", "503", "500"],
    "too many requests": ["429"],
    "wrong bytes once": ["wrong"],
    "a web page": ["page"],
    "silent for longer than the time-out": ["slow:1.5"],
    "dropped, then ranges ignored": ["drop:300000", "norange"],
    "dropped, then wrong bytes": ["drop:300000", "wrong"],
}


@pytest.mark.parametrize("name", FAULTS)
def test_transient_faults_end_in_the_right_file(server, name):
    server.faults = list(FAULTS[name])
    assert whole(fetch(FILE, delays=QUICK))
    assert server.faults == []


def test_a_hub_that_is_down_for_a_moment(server):
    server.head_faults = ["500", "502", "503"]
    assert whole(fetch(FILE, delays=QUICK))


LASTING = {
    "wrong": "expected the hash",
    "truncate:10": "the answer was cut short",
    "500": "it answered 500",
    "page": "the answer was cut short",
}


@pytest.mark.parametrize("fault", LASTING)
def test_lasting_faults_end_in_an_error(server, fault):
    server.always = fault
    with pytest.raises(
        TemporaryError, match=rf"cannot fetch someone/models/weights/model\.pth from .*{LASTING[fault]}"
    ):
        fetch(FILE, delays=(0.01,))
    assert nothing_under_final_name()
    assert recorded(FILE) is None


def test_resumed_by_another_process(server):
    """What a killed process had received is kept; the next one asks only for the rest."""
    server.always = "slow:5"
    code = (
        "from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 1 << 16;"
        "from dd.checkpoints.hub import fetch, HubFile; fetch(HubFile('someone/models', 'weights/model.pth'))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"HF_HUB_DOWNLOAD_TIMEOUT": "30"})
    try:
        deadline = time.monotonic() + 30
        parts: list[Path] = []
        while not (parts and parts[0].stat().st_size > 0) and time.monotonic() < deadline:
            time.sleep(0.05)
            parts = list(local_path(FILE).parent.glob("*.part"))
    finally:
        child.kill()
        child.wait()
    received = parts[0].stat().st_size
    assert received >= 1 << 16
    assert nothing_under_final_name()
    server.always = None
    assert whole(fetch(FILE))
    assert server.gets[-1] == f"bytes={received}-"


def test_the_recorded_revision_and_hash_are_enforced(server):
    fetch(FILE)
    local_path(FILE).unlink()
    server.files[FILE.key] = CONTENT[::-1]
    server.commit = "f" * 40
    with pytest.raises(DDError, match=rf"recorded is {SHA[:12]}.*another file took its place"):
        fetch(FILE)
    assert server.revisions[-1] == COMMIT  # asked for the recorded commit, not for the branch
    assert nothing_under_final_name()
    server.digest = "not-a-digest"  # a server that announces no hash: the bytes themselves are checked
    with pytest.raises(DDError, match="expected the hash"):
        fetch(FILE, delays=())
    assert nothing_under_final_name()


def test_a_hash_from_the_index_is_enforced(server):
    with pytest.raises(DDError, match="recorded is 000000000000"):
        fetch(FILE, sha256="0" * 64)
    assert whole(fetch(FILE, sha256=SHA))


def test_git_blob_digest_of_small_files(server):
    server.digest = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    assert whole(fetch(FILE))
    local_path(FILE).unlink()
    hub.lock_file().unlink()
    server.digest = "1" * 40
    with pytest.raises(DDError, match="expected the hash 111111111111"):
        fetch(FILE, delays=())


@pytest.mark.parametrize(("status", "why"), [(404, "check the repository and path"), (401, "set HF_TOKEN")])
def test_final_answers_are_not_retried(server, status, why):
    server.head_faults = [str(status)] * 3
    with pytest.raises(DDError, match=rf"answered {status} .*{why}.*place the file at"):
        fetch(FILE, delays=(60,))
    assert nothing_under_final_name()


def test_no_network_says_what_to_place_where(server, monkeypatch):
    server.close()
    with pytest.raises(
        DDError, match=r"cannot fetch .*check the network, set HF_ENDPOINT .*place the file at .*model\.p"
    ):
        fetch(FILE, delays=(0.01,))
    local_path(FILE).write_bytes(CONTENT)
    assert whole(fetch(FILE))
    record = recorded(FILE)
    assert record is not None
    assert record.revision is None
    local_path(FILE).write_bytes(CONTENT + b"x")  # the file placed by hand is pinned, too
    with pytest.raises(DDError, match="expected SHA-256"):
        verify(FILE)


def test_offline(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DDError, match=r"not in the cache and HF_HUB_OFFLINE is set.*place the file at"):
        fetch(FILE)
    assert server.revisions == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    fetch(FILE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert whole(fetch(FILE))


def test_a_damaged_copy_is_replaced(server):
    fetch(FILE)
    local_path(FILE).write_bytes(b"damaged")
    with pytest.raises(DDError, match="expected SHA-256"):
        verify(FILE)
    assert whole(fetch(FILE))


def test_full_disk_is_said_before_the_download(server, monkeypatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(DDError, match=r"needs 1\.0 MB more in .*free some space or set DD_CACHE"):
        fetch(FILE, delays=())
    assert server.gets == []


def test_a_server_that_is_no_hub(server, monkeypatch):
    server.commit = ""
    with pytest.raises(DDError, match="check HF_ENDPOINT"):
        fetch(FILE, delays=())


def test_a_damaged_lock_file(server):
    hub.lock_file().parent.mkdir(parents=True)
    hub.lock_file().write_text("a: [1, 2")
    with pytest.raises(DDError, match=r"is damaged .*restore it from git"):
        fetch(FILE)


def test_redirected_to_another_host_without_the_token(server, monkeypatch):
    """The real hub sends large files from elsewhere; the user's token must not go there."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    elsewhere = Hub(server.files)
    server.cdn, elsewhere.faults = elsewhere.url.replace("127.0.0.1", "localhost"), ["drop:300000", "503"]
    assert whole(fetch(FILE, delays=QUICK))
    assert elsewhere.gets[:2] == ["", f"bytes={300000 >> 16 << 16}-"]  # whole chunks are kept
    assert set(server.tokens) == {"Bearer hf_secret"}
    assert set(elsewhere.tokens) == {""}
    elsewhere.close()
