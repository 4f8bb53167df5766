"""The Prefect server of a project: versions, proxies, ports, a start that fails."""

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dd.errors import DDError
from pipeline.servers import server


class Version(http.server.BaseHTTPRequestHandler):
    """A server that says its version and is healthy."""

    version = "3.0.0"

    def do_GET(self) -> None:
        body = json.dumps(self.version).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def old() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Version) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/api"
        httpd.shutdown()


def test_an_older_server_is_told_of_and_another_major_refused(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.check_version(old, "3.0.0") is None
    assert f"the Prefect server at {old} is older (3.0.0) than this client (3.8.8)" in str(
        server.check_version(old, "3.8.8")
    )
    monkeypatch.setattr(Version, "version", "2.20.1")
    with pytest.raises(
        DDError, match=r"expected a Prefect 3 server at .*, found 2\.20\.1: update it, or add --no-server"
    ):
        server.check_version(old, "3.8.8")


def test_loopback_takes_no_proxy(old: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    assert server.healthy(old)
    settings = server.settings(tmp_path)
    assert settings["no_proxy"] == settings["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1"


def test_a_server_that_does_not_come_up_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(server, "START_PATIENCE", 0.0)
    monkeypatch.setattr(server, "START_LIMIT", 1.0)
    monkeypatch.setattr(server, "healthy", lambda *_: False)
    with pytest.raises(DDError, match=r"expected a Prefect server at .*, it did not start: its log is .*server\.log"):
        server.start(tmp_path, server.free_port(0), say=said.append)
    assert len(said) == 1
    assert "has not answered for" in said[0]
    assert "its log is" in said[0]


def test_a_free_port_is_found_and_a_record_ends_with_its_server(tmp_path: Path) -> None:
    first = server.free_port(0)
    with socket.socket() as taken:
        taken.bind((server.HOST, first))
        taken.listen()
        assert server.free_port(first) != first
    (tmp_path / ".prefect").mkdir()
    with server.record(tmp_path, server.Server("http://127.0.0.1:9/api", "http://127.0.0.1:10", 1)):
        assert server.recorded(tmp_path) is not None
        assert server.find(tmp_path) is None  # written down, but nothing answers
    assert server.recorded(tmp_path) is None
    assert server.settings(tmp_path)["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
