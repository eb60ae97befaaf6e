"""A fake Hugging Face hub: the endpoints that downloading and uploading a model use."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FakeHub:
    """`models[name][commit][file]` is the content of a file; `requests` lists all requests."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, dict[str, bytes]]] = {}
        self.refs: dict[tuple[str, str], str] = {}
        self.private: dict[str, object] = {}
        self.requests: list[str] = []
        self.error_status = 0
        self.on_request: Callable[[], object] | None = None
        """Called once, after a config.json was downloaded."""

    def commit(self, name: str, files: dict[str, bytes], branch: str = "main") -> str:
        commits = self.models.setdefault(name, {})
        before = commits.get(self.refs.get((name, branch), ""), {})
        commit = hashlib.sha1(f"{name} {branch} {len(commits)}".encode()).hexdigest()
        commits[commit] = {**before, **files}
        self.refs[name, branch] = self.refs[name, commit] = commit
        return commit

    def commit_folder(self, name: str, folder: Path) -> str:
        return self.commit(name, {path.name: path.read_bytes() for path in folder.iterdir()})


class FakeHubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def _handle(self) -> None:
        content = self._content()
        self.hub.requests.append(f"{self.command} {self.path}")
        if self.hub.error_status:
            self._send(self.hub.error_status, b"{}")
        elif "/resolve/" in self.path:
            self._file(*self.path.lstrip("/").split("/resolve/"))
        elif self.path == "/api/repos/create":
            wanted = json.loads(content)
            name = f"{wanted['organization']}/{wanted['name']}"
            if name not in self.hub.models:  # an existing one is not changed
                self.hub.private[name] = wanted.get("private", wanted.get("visibility"))
            self.hub.models.setdefault(name, {})
            self._json({"url": f"http://{self.headers['Host']}/{name}"})
        elif "/preupload/" in self.path:
            self._json(
                {
                    "files": [
                        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for file in json.loads(content)["files"]
                    ]
                }
            )
        elif "/branch/" in self.path:
            self._json({})
        elif "/commit/" in self.path:
            name, branch = self.path.removeprefix("/api/models/").split("/commit/")
            lines = [json.loads(line) for line in content.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            commit = self.hub.commit(name, files, branch)
            self._json(
                {
                    "commitUrl": f"http://{self.headers['Host']}/{name}/commit/{commit}",
                    "commitOid": commit,
                    "success": True,
                }
            )
        elif self.path.removeprefix("/api/models/").count("/") == 1:
            name = self.path.removeprefix("/api/models/")
            self._json({"id": name, "private": self.hub.private.get(name) in {True, "private"}})
        else:
            self._json({})

    do_GET = do_POST = do_HEAD = _handle  # noqa: N815 - the names that http.server calls

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _file(self, name: str, rest: str) -> None:
        revision, file = rest.split("/", 1)
        commit = self.hub.refs.get((name, revision))
        if name not in self.hub.models:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif commit is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif file not in self.hub.models[name][commit]:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        else:
            content = self.hub.models[name][commit][file]
            if file == "config.json" and self.command == "GET" and self.hub.on_request:
                self.hub.on_request()
            self._send(200, content, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def _json(self, values: object) -> None:
        self._send(200, json.dumps(values).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def fake_hub():
    """Yield a fake hub and its address."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (FakeHubHandler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
