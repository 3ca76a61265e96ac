"""A small server that speaks the Hub's protocol, so that the Hub's own libraries can be tested without a network.

Set HF_ENDPOINT to `HubServer.url` in a NEW process: huggingface_hub reads it when it is imported.
"""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)(?:/(?P<call>revision|tree|paths-info)/(?P<rest>.*))?"
)
_FILE = re.compile(r"/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


class HubServer:
    """Repositories in memory, each with commits; the last commit is `main`."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self, body=True)

            def do_HEAD(self) -> None:
                server.answer(self, body=False)

            def do_POST(self) -> None:
                server.answer(self, body=True)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def commit(self, kind: str, repository: str, files: dict[str, bytes]) -> str:
        """Add a commit with these files to a repository of kind "models" or "datasets"; return its hash."""
        commits = self.repositories.setdefault((kind, repository), {})
        content = json.dumps([repository, len(commits), sorted(files)])
        sha = hashlib.sha1(content.encode()).hexdigest()
        commits[sha] = files
        return sha

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        posted = request.rfile.read(length)
        path = unquote(urlsplit(request.path).path)
        self.requests.append(f"{request.command} {request.path}")
        if match := _API.fullmatch(path):
            status, headers, content = self._api(match, posted)
        elif match := _FILE.fullmatch(path):
            status, headers, content = self._file(match, request.headers.get("Range"))
        else:
            status, headers, content = 404, {}, b"{}"
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body:
            request.wfile.write(content)

    def _commit_of(self, kind: str, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | str:
        if repository in self.gated:
            return "GatedRepo"
        commits = self.repositories.get((kind, repository))
        if commits is None:
            return "RepoNotFound"
        sha = list(commits)[-1] if revision == "main" else revision
        return (sha, commits[sha]) if sha in commits else "RevisionNotFound"

    def _api(self, match: re.Match[str], posted: bytes) -> tuple[int, dict[str, str], bytes]:
        rest = match["rest"] or "main"
        revision, _, folder = rest.partition("/")
        found = self._commit_of(match["kind"], match["id"], revision)
        if isinstance(found, str):
            return _error(found)
        sha, files = found
        answer: Any
        if match["call"] == "tree":
            answer = _tree(files, folder)
        elif match["call"] == "paths-info":
            asked = json.loads(posted)["paths"]
            answer = [entry for entry in _tree(files, "") if entry["path"] in asked]
        else:
            siblings = [{"rfilename": name} for name in files]
            answer = {"id": match["id"], "sha": sha, "siblings": siblings, "private": False, "gated": False, "tags": []}
        return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def _file(self, match: re.Match[str], wanted: str | None) -> tuple[int, dict[str, str], bytes]:
        kind = "datasets" if match["kind"] else "models"
        found = self._commit_of(kind, match["id"], match["revision"])
        if isinstance(found, str):
            return _error(found)
        sha, files = found
        if match["path"] not in files:
            return _error("EntryNotFound", sha)
        content = files[match["path"]]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_blob(content)}"', "Accept-Ranges": "bytes"}
        if wanted and (span := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)):
            first = int(span[1])
            last = min(int(span[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return 206, headers, content[first : last + 1]
        return 200, headers, content


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _tree(files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
    folder = folder.strip("/")
    below = {name: content for name, content in files.items() if not folder or name.startswith(f"{folder}/")}
    folders = {"/".join(name.split("/")[:end]) for name in below for end in range(1, name.count("/") + 1)}
    entries: list[dict[str, Any]] = [
        {"type": "directory", "path": name, "oid": _blob(name.encode()), "size": 0}
        for name in sorted(folders)
        if name != folder
    ]
    return entries + [
        {"type": "file", "path": name, "oid": _blob(content), "size": len(content)} for name, content in below.items()
    ]


def _error(code: str, sha: str = "") -> tuple[int, dict[str, str], bytes]:
    status = 403 if code == "GatedRepo" else 404
    headers = {"X-Error-Code": code, "X-Error-Message": code} | ({"X-Repo-Commit": sha} if sha else {})
    return status, headers, json.dumps({"error": code}).encode()
