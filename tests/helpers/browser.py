"""Headless Chromium by its own debugging protocol: open a page, run a script in it, take a picture."""

import asyncio
import base64
import json
import shutil
import subprocess
import time
import urllib.parse
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
FLAGS = (*QUIET, "--no-proxy-server", "--remote-debugging-port=0", "--allow-file-access-from-files")


class Browser:
    """One page in a browser of its own, closed at the end of the `with`. home: a folder for its profile."""

    def __init__(self, home: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        size = f"--window-size={width},{height}"
        assert CHROMIUM is not None
        command = [CHROMIUM, *FLAGS, scheme, size, f"--user-data-dir={home}", "about:blank"]
        self.home, self.width, self.height = home, width, height
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.loop = asyncio.new_event_loop()
        self.number, self.events = 0, []

    def __enter__(self) -> "Browser":
        self.loop.run_until_complete(self._connect())
        size = {"width": self.width, "height": self.height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Network.enable")
        self.call("Page.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run_until_complete(self.socket.close())
        self.loop.close()
        self.process.terminate()
        self.process.wait(30)

    async def _connect(self) -> None:
        from urllib.request import ProxyHandler, build_opener

        import websockets

        file, end = self.home / "DevToolsActivePort", time.monotonic() + 60
        while not (file.is_file() and file.read_text().count("\n")):
            assert time.monotonic() < end, "Chromium did not start"
            await asyncio.sleep(0.1)
        port = file.read_text().splitlines()[0]
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/json/list", timeout=60) as answer:
            page = next(one for one in json.loads(answer.read()) if one["type"] == "page")
        self.socket = await websockets.connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol and its result."""
        return self.loop.run_until_complete(self._call(method, parameters))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self.number += 1
        await self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.recv(), 120))
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of a script in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 120) -> None:
        """Wait until a script is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"not true within {seconds} s: {script}"
            time.sleep(0.1)

    def hosts(self) -> set[str]:
        """Hosts (with ports) that the page asked for anything."""
        asked = [one["params"]["request"]["url"] for one in self.events if one["method"] == "Network.requestWillBeSent"]
        return {urllib.parse.urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}

    def picture(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
