"""A hub on loopback that takes pushes too: repositories, large files, commits, and refusals on request.

`PushHub.put_faults` are statuses that the coming uploads of large files meet, one each; `PushHub.refuse` maps a part of
an address to the status that every request there gets.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import ThreadingHTTPServer

import yaml

from tests.helpers.hub_server import Handler, Hub


class PushHub(Hub):
    """A `Hub` that can be written to."""

    def __init__(self) -> None:
        super().__init__({})
        self.repos: dict[str, dict] = {}
        self.stored: dict[str, bytes] = {}  # large files by SHA-256, committed or not
        self.put_faults: list[int] = []
        self.refuse: dict[str, int] = {}
        self.puts: list[str] = []
        self.commits: list[list[dict]] = []
        self.server.shutdown()
        self.server.server_close()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (PushHandler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


class PushHandler(Handler):
    """The endpoints that huggingface_hub pushes through."""

    hub: PushHub

    def do_GET(self) -> None:  # noqa: N802
        """Files, and what a repository holds."""
        if not self.path.startswith("/api/models/"):
            return super().do_GET()
        repo = "/".join(self.path.split("?")[0].split("/")[3:5])
        names = [name.removeprefix(f"{repo}/") for name in self.hub.files if name.startswith(f"{repo}/")]
        if "/tree/" in self.path:
            return self.answer([{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in names])
        siblings = [{"rfilename": name} for name in names]
        return self.answer({"id": repo, "modelId": repo, "sha": self.hub.commit, "siblings": siblings})

    def do_POST(self) -> None:  # noqa: N802
        """What a push asks for."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        for part, status in self.hub.refuse.items():
            if part in path:
                return self.answer({"error": "refused"}, status)
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.validate(json.loads(body)["content"])
        if "/preupload/" in path:
            return self.preupload(json.loads(body))
        if path.endswith("/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        if "/commit/" in path:
            return self.commit(path, body)
        return self.answer_status(404)

    def do_PUT(self) -> None:  # noqa: N802
        """A large file, stored under its hash."""
        body, oid = self.rfile.read(int(self.headers["Content-Length"])), self.path.rsplit("/", 1)[1]
        self.hub.puts.append(oid)
        if self.hub.put_faults:
            return self.answer_status(self.hub.put_faults.pop(0))
        if hashlib.sha256(body).hexdigest() != oid:
            return self.answer_status(400)
        self.hub.stored[oid] = body
        return self.answer_status(200)

    def create(self, asked: dict) -> None:
        """A new repository, or 409."""
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            return self.answer({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
        self.hub.repos[name] = asked
        return self.answer({"url": f"{self.hub.url}/{name}"})

    def validate(self, card: str) -> None:
        """The metadata must be YAML with a licence."""
        data = yaml.safe_load(card.split("---")[1])
        errors = [] if isinstance(data.get("license"), str) else [{"message": '"license" is required'}]
        return self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, asked: dict) -> None:
        """Tensors and pictures are large files."""
        large = (".safetensors", ".png")
        modes = [(file["path"], "lfs" if file["path"].endswith(large) else "regular") for file in asked["files"]]
        return self.answer({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes]})

    def batch(self, asked: dict) -> None:
        """Where large files go; nothing for those that are there."""
        objects = []
        for one in asked["objects"]:
            known = one["oid"] in self.hub.stored
            actions = {} if known else {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
            objects.append({**one, **actions})
        return self.answer({"transfer": "basic", "objects": objects})

    def commit(self, path: str, body: bytes) -> None:
        """All or nothing."""
        repo = "/".join(path.split("/")[3:5])
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.hub.files[f"{repo}/{value['path']}"] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[f"{repo}/{value['path']}"] = self.hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.hub.files[f"{repo}/{value['path']}"]
        self.hub.commits.append(lines)
        url = f"{self.hub.url}/{repo}/commit/{self.hub.commit}"
        return self.answer({"commitUrl": url, "commitOid": self.hub.commit})

    def answer(self, content: object, status: int = 200) -> None:
        """JSON."""
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
