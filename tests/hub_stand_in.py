"""A stand-in for Hugging Face's hub, at the boundary that huggingface_hub speaks to: HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories of models, each with the files of every commit.

    Attributes:
        url: where it listens.
        commits: by repository and revision, the files.
        private: whether each repository is.
    """

    def __init__(self) -> None:
        self.url = ""
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}

    @contextmanager
    def serve(self) -> Iterator[Hub]:
        handler = type("Handler", (_Handler,), {"hub": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            thread = Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield self
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self._answer({"error": "Invalid token"}, 401)
        place = unquote(urlsplit(self.path).path)
        if place == "/api/repos/create":
            given = json.loads(body)
            repo = f"{given['organization']}/{given['name']}" if given.get("organization") else ""
            repo = repo or f"me/{given['name']}"
            self.hub.private.setdefault(repo, given.get("private") or "private" in body)
            self.hub.commits.setdefault(repo, {"main": {".gitattributes": b""}})
            return self._answer({"url": f"{self.hub.url}/{repo}"})
        if place == "/api/validate-yaml":  # of the card
            return self._answer({"errors": [], "warnings": []})
        user, name, act, revision = place.removeprefix("/api/models/").split("/", 3)
        repo = f"{user}/{name}"
        if act == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            files = [
                {"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for path in paths
            ]
            return self._answer({"files": files})
        if act == "commit":
            files = dict(self.hub.commits[repo]["main"])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    files[value["path"]] = base64.b64decode(value["content"])
            self.hub.commits[repo]["main"] = files
            url = f"{self.hub.url}/{repo}/commit/{_oid(files)}"
            return self._answer(
                {"success": True, "commitOid": _oid(files), "commitUrl": url, "hookOutput": ""}
            )
        if act == "tag":
            tag = json.loads(body)["tag"]
            self.hub.commits[repo][tag] = self.hub.commits[repo][revision]
            return self._answer({})
        return self._answer({"error": place}, 404)

    def do_GET(self) -> None:
        place = unquote(urlsplit(self.path).path)
        parts = place.removeprefix("/api/models/").strip("/").split("/")
        repo, rest = "/".join(parts[:2]), parts[2:]
        if repo not in self.hub.commits:
            return self._answer({"error": "Repository not found"}, 404, "RepoNotFound")
        commits = self.hub.commits[repo]
        if rest[:1] == ["refs"]:
            refs = [
                {"name": name, "ref": f"refs/tags/{name}", "targetCommit": _oid(files)}
                for name, files in commits.items()
            ]
            branches = [ref for ref in refs if ref["name"] == "main"]
            tags = [ref for ref in refs if ref["name"] != "main"]
            return self._answer({"branches": branches, "tags": tags, "converts": []})
        wanted = rest[1] if len(rest) > 1 else "main"
        found = [files for name, files in commits.items() if wanted in (name, _oid(files))]
        if not found:
            return self._answer({"error": "Revision not found"}, 404, "RevisionNotFound")
        files = found[0]
        if rest[:1] == ["resolve"]:
            name = "/".join(rest[2:])
            if name not in files:
                return self._answer({"error": "Entry not found"}, 404, "EntryNotFound")
            return self._send(
                files[name], {"X-Repo-Commit": _oid(files), "ETag": _etag(files[name])}
            )
        if rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
                for name, content in files.items()
            ]
            return self._answer(entries)
        siblings = [{"rfilename": name} for name in files]
        return self._answer(
            {"id": repo, "modelId": repo, "sha": _oid(files), "siblings": siblings, "tags": []}
        )

    do_HEAD = do_GET

    def _answer(self, content: Any, status: int = 200, code: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": content["error"]} if code else {}
        self._send(json.dumps(content).encode(), headers, status)

    def _send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def _oid(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + content)
    return digest.hexdigest()


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
