"""A fake Hugging Face hub: the endpoints that downloading and uploading a model or a Space use."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
LICENSES = {"apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-3.0", "unknown", "other"}
"""Some of the identifiers that the hub lists."""
SPACE_PREFIX = "spaces/"


class FakeHub:
    """`models[name][commit][file]` is the content of a file; `requests` lists all requests.

    The name of a Space is spaces/user/name. `validated` lists the kind and the front matter of each checked README.md.
    """

    def __init__(self) -> None:
        self.models: dict[str, dict[str, dict[str, bytes]]] = {}
        self.refs: dict[tuple[str, str], str] = {}
        self.private: dict[str, object] = {}
        self.requests: list[str] = []
        self.validated: list[tuple[str, dict]] = []
        self.sdks: dict[str, str] = {}
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
            if wanted.get("type") == "space":
                name = SPACE_PREFIX + name
                self.hub.sdks[name] = wanted["sdk"]
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
        elif self.path == "/api/validate-yaml":
            self._validate(json.loads(content))
        elif "/branch/" in self.path:
            self._json({})
        elif "/commit/" in self.path:
            name, branch = self._name().split("/commit/")
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
        elif self._name().removeprefix(SPACE_PREFIX).count("/") == 1:
            name = self._name()
            self._json({"id": name, "private": self.hub.private.get(name) in {True, "private"}})
        else:
            self._json({})

    do_GET = do_POST = do_HEAD = _handle  # noqa: N815 - the names that http.server calls

    def _name(self) -> str:
        """Return the path below /api/models/, or below /api/ for a Space."""
        return self.path.removeprefix("/api/models/").removeprefix("/api/")

    def _validate(self, body: dict) -> None:
        front_matter = yaml.safe_load(body["content"].split("---")[1])
        self.hub.validated.append((body["repoType"], front_matter))
        errors = front_matter_errors(front_matter, body["repoType"])
        self._json({"errors": [{"message": error} for error in errors], "warnings": []}, 400 if errors else 200)

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

    def _json(self, values: object, status: int = 200) -> None:
        self._send(status, json.dumps(values).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def front_matter_errors(front_matter: dict, repo_type: str) -> list[str]:
    """Return what the hub's documentation forbids in the front matter of a README.md."""
    errors = []
    if front_matter.get("license") not in LICENSES:
        errors.append(f'"license" must be one of the listed ones, not {front_matter.get("license")!r}')
    for field in ("tags", "datasets", "models"):
        values = front_matter.get(field, ["x"])
        if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
            errors.append(f'"{field}" must be a list of strings')
    for field in ("datasets", "models"):
        errors += [f"{name!r} is no name on the hub" for name in front_matter.get(field, []) if name.count("/") > 1]
    if repo_type == "space":
        colors = ("colorFrom", "colorTo")
        errors += [f'"{field}" must be a color' for field in colors if front_matter[field] not in COLORS]
        if front_matter["sdk"] not in {"gradio", "docker", "static"}:
            errors.append('"sdk" must be one of gradio, docker, static')
        if len(front_matter.get("short_description", "")) > 60:
            errors.append('"short_description" must have at most 60 characters')
    return errors


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
