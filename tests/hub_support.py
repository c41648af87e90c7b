"""A stand-in for the Hugging Face hub on loopback: as much of its HTTP API as uploads and downloads of models take."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """Its address, and repositories by name: file name -> content."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)

    def environment(self, home: Any) -> dict[str, str]:
        """What makes huggingface_hub ask this hub and nobody else."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": "hf_test",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }


@contextlib.contextmanager
def hub() -> Iterator[Hub]:
    """A hub without repositories."""
    state = Hub()

    class Handler(_Handler):
        hub = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing: tests print what they need."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        self.hub.tokens.add(self.headers.get("Authorization"))
        if path == "/api/repos/create":
            facts = json.loads(body)
            name = "/".join(filter(None, [facts.get("organization"), facts["name"]]))
            self.hub.repositories.setdefault(name, {})
            self._json({"url": f"{self.hub.url}/{name}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = [{"path": each["path"]} for each in json.loads(body)["files"]]
            self._json({"files": [each | {"uploadMode": "regular", "shouldIgnore": False} for each in files]})
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            files = self.hub.repositories[found[1]]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    assert line["value"]["encoding"] == "base64"
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    files.pop(line["value"]["path"], None)
            address = f"{self.hub.url}/{found[1]}/commit/{_revision(files)}"
            self._json({"commitUrl": address, "commitOid": _revision(files), "success": True})
        else:
            self._missing(path)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            files = self.hub.repositories[found[1]]
            rows = [{"type": "file", "path": n, "size": len(c), "oid": _digest(c)} for n, c in files.items()]
            self._json(rows)
        elif (found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.+)?", path)) and self._has(found[1]):
            files = self.hub.repositories[found[1]]
            names = [{"rfilename": name} for name in files]
            self._json({"id": found[1], "sha": _revision(files), "siblings": names, "private": False})
        elif (found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)) and self._has(found[1]):
            files = self.hub.repositories[found[1]]
            if found[3] not in files:
                self._missing(path, "EntryNotFound")
                return
            content = files[found[3]]
            headers = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": found[2]}
            self._send(200, content, "application/octet-stream", headers)
        else:
            self._missing(path, "RepoNotFound")

    do_HEAD = do_GET  # noqa: N815

    def _has(self, repository: str) -> bool:
        return repository in self.hub.repositories

    def _missing(self, path: str, code: str = "") -> None:
        self._send(404, json.dumps({"error": f"no {path}"}).encode(), "application/json", {"X-Error-Code": code})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), "application/json", {})

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _revision(files: dict[str, bytes]) -> str:
    """Forty hexadecimal digits, as of a commit."""
    return _digest(b"".join(name.encode() + content for name, content in sorted(files.items())))
