"""The fault table: `python -m tests.soak.faults [--random 100] [--out docs/faults.md]`.

Every fault is met by `dd.checkpoints.hub.fetch` against a server on loopback; the table says what came out of it,
with the error's own words. `--random` adds that many random sequences of faults, to look for a wrong file under the
final name.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from huggingface_hub import constants, file_download

from dd.checkpoints import hub
from dd.checkpoints.hub import HubFile, fetch, local_path
from dd.errors import DDError
from tests.helpers.hub_server import Hub

CONTENT = bytes(range(256)) * 2048
FILE = HubFile("someone/models", "model.pth")
DELAYS = (0.01,) * 5  # as many attempts as in use, without the pauses


@dataclass(frozen=True)
class Fault:
    """What the server does to the coming downloads, or to all of them."""

    name: str
    faults: tuple[str, ...] = ()
    always: str | None = None
    before: str = ""  # a state of the machine or the server, see `prepare`


TABLE = (
    Fault("none"),
    Fault("connection dropped at 57 % and again at 95 %", ("drop:300000", "drop:200000")),
    Fault("connection dropped before the first byte", ("drop:0",)),
    Fault("answer shorter than announced by the hub", ("truncate:1000",)),
    Fault("500, 503, 500", ("500", "503", "500")),
    Fault("429 (too many requests)", ("429",)),
    Fault("wrong bytes of the right length, once", ("wrong",)),
    Fault("a captive portal's page, once", ("page",)),
    Fault("silence longer than the time-out, in mid-file", ("slow:1.5",)),
    Fault("dropped; the server then ignores ranges", ("drop:300000", "norange")),
    Fault("dropped; the rest has wrong bytes", ("drop:300000", "wrong")),
    Fault("the hub's answers about the file: 500, 502, 503", before="unsteady"),
    Fault("slow: 0.2 s of silence in mid-file", ("slow:0.2",)),
    Fault("wrong bytes, always", always="wrong"),
    Fault("truncated, always", always="truncate:10"),
    Fault("500, always", always="500"),
    Fault("no such file", before="missing"),
    Fault("private or gated repository", before="gated"),
    Fault("nobody answers", before="down"),
    Fault("another file than recorded", before="replaced"),
    Fault("HF_HUB_OFFLINE=1, nothing cached", before="offline"),
    Fault("damaged copy in the cache", before="damaged"),
    Fault("the disk is too small", before="full"),
)


def prepare(server: Hub, state: str) -> None:
    """Bring about one of the states of `Fault.before`."""
    if state == "unsteady":
        server.head_faults = ["500", "502", "503"]
    elif state == "missing":
        server.files = {}
    elif state == "gated":
        server.head_faults = ["401"] * 9
    elif state == "down":
        server.close()
    elif state == "offline":
        os.environ["HF_HUB_OFFLINE"] = "1"
    elif state == "full":
        hub.shutil.disk_usage = lambda _: SimpleNamespace(free=1000)  # type: ignore[assignment, attr-defined]
    elif state in ("damaged", "replaced"):
        fetch(FILE)
        if state == "damaged":
            local_path(FILE).write_bytes(b"damaged")
        else:
            local_path(FILE).unlink()
            server.files[FILE.key] = CONTENT[::-1]


def meet(fault: Fault) -> tuple[str, str, int, float]:
    """Outcome ("right file", "clear error" or "WRONG"), the error's words, requests for the file, seconds."""
    with tempfile.TemporaryDirectory() as folder:
        server = Hub({FILE.key: CONTENT})
        os.environ |= {"HF_ENDPOINT": server.url, "DD_CACHE": folder, "DD_HUB_LOCK": f"{folder}/hub.lock.yaml"}
        os.environ.pop("HF_HUB_OFFLINE", None)
        usage = hub.shutil.disk_usage  # type: ignore[attr-defined]
        words, started = "", time.perf_counter()
        try:
            prepare(server, fault.before)
            server.faults, server.always = list(fault.faults), fault.always
            fetch(FILE, delays=DELAYS)
        except DDError as error:
            words = str(error).replace(server.url, "http://127.0.0.1").replace(folder, "~/.cache/dd")
        finally:
            hub.shutil.disk_usage = usage  # type: ignore[attr-defined]
        seconds = time.perf_counter() - started
        target = local_path(FILE)
        right = target.is_file() and target.read_bytes() == CONTENT
        wrong = (target.exists() and not right) or (not words and not right)
        if fault.before != "down":
            server.close()
        return ("WRONG" if wrong else "clear error" if words else "right file"), words, len(server.gets), seconds


def random_fault(seed: int) -> Fault:
    """One to six faults in a row, some of them lasting."""
    draw = random.Random(seed)
    kinds = ["500", "503", "429", "wrong", "page", "norange", ""]
    kinds += [f"drop:{draw.randrange(len(CONTENT))}", f"truncate:{draw.randrange(1, 5000)}"]
    faults = tuple(draw.choices(kinds, k=draw.randint(1, 6)))
    return Fault(f"random {seed}", faults, draw.choice([None, None, "wrong", "truncate:7", "500"]))


def main() -> None:
    """Print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=100)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.getLogger("dd.checkpoints.hub").setLevel(logging.ERROR)
    constants.HF_HUB_DOWNLOAD_TIMEOUT = 0.5
    constants.DOWNLOAD_CHUNK_SIZE = 1 << 16
    file_download.time = SimpleNamespace(sleep=lambda _: None)  # type: ignore[assignment]  # its pauses of a second
    hub._hub_cache = lambda _: None  # type: ignore[assignment]
    lines = ["| fault | ends in | requests | what the user reads |", "|---|---|---|---|"]
    for fault in TABLE:
        outcome, words, requests, _ = meet(fault)
        lines.append(f"| {fault.name} | {outcome} | {requests} | {words} |")
    counts = Counter(meet(random_fault(seed))[0] for seed in range(arguments.random))
    lines += [
        "",
        f"{arguments.random} random sequences of these faults: {counts['right file']} ended in the right file, ",
    ]
    lines[-1] += f"{counts['clear error']} in a clear error, {counts['WRONG']} in a wrong file under the final name."
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        head = "# Downloads under faults\n\nMade by `python -m tests.soak.faults --random {} --out {}`: {}\n\n"
        about = (
            "`dd.checkpoints.hub.fetch` against a server on loopback that misbehaves. "
            '"Requests" counts those for the file itself.'
        )
        arguments.out.write_text(head.format(arguments.random, arguments.out, about) + text, encoding="utf-8")
    if counts["WRONG"] or any("WRONG" in line for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
