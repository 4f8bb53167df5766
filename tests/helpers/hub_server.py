"""A hub on loopback that misbehaves on request: drops, truncates, answers 5xx, serves wrong bytes, is slow.

`Hub.faults` is a list of faults that the coming GET requests meet, one each; when it is empty, all is well:
    "drop:N"      close the connection after N bytes (content length announced in full)
    "truncate:N"  a complete answer, N bytes short of the file
    "wrong"       the right length, other bytes
    "page"        200 with a web page (a captive portal)
    "norange"     ignore the Range header: the whole file with status 200
    "slow:S"      S seconds of silence in mid-file
    "500", "503", "429", "404", "401": that status
`Hub.head_faults` likewise for the HEAD requests (statuses and "slow:S" only).
"""

from __future__ import annotations

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves `files` ({"repo/path": bytes}) below `url`; counts what was asked."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.commit = COMMIT
        self.digest: str | None = None  # overrides the announced ETag
        self.faults: list[str] = []
        self.head_faults: list[str] = []
        self.always: str | None = None  # a fault of every GET
        self.cdn: str | None = None  # where files really lie: requests are redirected there, as the real hub does
        self.tokens: list[str] = []  # Authorization headers of the GET requests
        self.gets: list[str] = []  # Range headers of the GET requests
        self.revisions: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers `/{owner}/{name}/resolve/{revision}/{path}`."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        """Facts about a file."""
        fault = self.hub.head_faults.pop(0) if self.hub.head_faults else ""
        if fault.startswith("slow:"):
            time.sleep(float(fault[5:]))
        if fault.isdigit():
            return self.answer_status(int(fault))
        content = self.find()
        if content is None:
            return self.answer_status(404)
        if self.hub.cdn:
            return self.redirect(content)
        self.send_response(200)
        self.facts(content)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return None

    def do_GET(self) -> None:
        """The file, or a fault."""
        hub = self.hub
        content = self.find()
        if content is None:
            return self.answer_status(404)  # the hub's client also asks for things that are no files
        hub.tokens.append(self.headers.get("Authorization", ""))
        if hub.cdn:
            return self.redirect(content)
        fault = hub.faults.pop(0) if hub.faults else hub.always or ""
        hub.gets.append(self.headers.get("Range", ""))
        if fault.isdigit():
            return self.answer_status(int(fault))
        whole, start = len(content), 0
        if (asked := self.headers.get("Range")) and fault != "norange":
            start = int(asked.removeprefix("bytes=").split("-")[0])
        body = content[start:]
        if fault == "wrong":
            body = bytes(byte ^ 0x5A for byte in body)
        if fault == "page":
            body, start = b"<html>please log in</html>", 0
        if fault.startswith("truncate:"):
            body = body[: -int(fault[9:])]
        self.send_response(206 if start else 200)
        self.facts(content)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault.startswith("drop:"):
            self.wfile.write(body[: int(fault[5:])])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return None
        if fault.startswith("slow:"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(float(fault[5:]))
            body = body[len(body) // 2 :]
        self.wfile.write(body)
        return None

    def find(self) -> bytes | None:
        """The file that the path names."""
        parts = self.path.split("?")[0].strip("/").split("/")
        if len(parts) < 5:
            return None
        self.hub.revisions.append(parts[3])
        return self.hub.files.get("/".join(parts[:2] + parts[4:]))

    def facts(self, content: bytes) -> None:
        """The hub's own headers."""
        digest = self.hub.digest or hashlib.sha256(content).hexdigest()
        self.send_header("X-Repo-Commit", self.hub.commit)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Linked-ETag", f'"{digest}"')

    def redirect(self, content: bytes) -> None:
        """Facts about the file, and another address for its bytes."""
        self.send_response(302)
        self.facts(content)
        self.send_header("Location", f"{self.hub.cdn}{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_status(self, status: int) -> None:
        """An answer without a file."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
