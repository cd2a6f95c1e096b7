"""A Hub on the loopback interface: serves folders as repositories and records the files requested."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """A Hub server. `repositories` maps a Hub id to its folder, `refusals` to (status, X-Error-Code).

    All repositories have the same `commit`; `history` maps earlier ones to the folder as it was.
    `gated` maps a Hub id to the tokens with access. `cuts` maps a file's name to the bytes after which each
    of its next responses breaks off; responses for `stalled` files stop there and wait until `released` is
    set.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Path] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.commit = COMMIT
        self.history: dict[str, Path] = {}
        self.refused = 0
        self.requested: list[str] = []
        self.ranges: list[str] = []
        self.ignores_ranges = False
        self.gated: dict[str, set[str]] = {}
        self.cuts: dict[str, list[int]] = {}
        self.stalled: set[str] = set()
        self.stalling = threading.Event()
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """Run a Hub in a thread within the context."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def sum_of(path: Path) -> str:
    """Return a file's ETag: the sha256 for weights, as for large files on the Hub."""
    kind = "sha256" if path.suffix == ".safetensors" else "sha1"
    return hashlib.new(kind, path.read_bytes()).hexdigest()


def _listed(path: Path) -> dict[str, object]:
    """The entry of a file in a repository's description."""
    size = path.stat().st_size
    listed = {"rfilename": path.name, "size": size}
    if path.suffix == ".safetensors":
        listed["lfs"] = {"size": size, "sha256": sum_of(path), "pointerSize": 134}
    return listed


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/")
        if not path:  # the home page
            self._send(200, b"", {}, with_body)
            return
        owner, name, *rest = path.split("/")
        repository = f"{owner}/{name}"
        if repository in self.server.refusals:
            status, code = self.server.refusals[repository]
            self.server.refused += 1
            self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": "refused"}, with_body)
        elif repository not in self.server.repositories:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)
        else:
            kind, revision, *file = rest if len(rest) > 1 else ["", "main"]
            self._repository(repository, kind, revision, file, with_body)

    def _repository(
        self, repository: str, kind: str, revision: str, file: list[str], with_body: bool
    ) -> None:
        commit = self.server.commit if revision == "main" else revision
        folder = self.server.history.get(commit, self.server.repositories[repository])
        names = sorted(path.name for path in folder.iterdir())
        if commit not in (self.server.commit, *self.server.history):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
        elif kind == "resolve" and (refusal := self._gate(repository)):
            status, message = refusal
            self._send(status, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": message}, with_body)
        elif kind == "resolve":
            self.server.requested.append("/".join(file))
            path = folder.joinpath(*file)
            if path.is_file():
                body = path.read_bytes()
                etag = f'"{sum_of(path)}"'
                self._file(file[-1], body, {"ETag": etag, "X-Repo-Commit": commit}, with_body)
            else:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, with_body)
        elif kind == "tree":
            listing = [{"type": "file", "path": name, "oid": commit, "size": 1} for name in names]
            if file:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
            else:
                self._send(200, json.dumps(listing).encode(), {}, with_body)
        else:
            siblings = [_listed(folder / name) for name in names]
            info = {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings, "tags": []}
            self._send(200, json.dumps(info).encode(), {}, with_body)

    def _gate(self, repository: str) -> tuple[int, str] | None:
        """Status and message of the refusal of a gated repository; None with access."""
        if repository not in self.server.gated:
            return None
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            return 401, f"Access to model {repository} is restricted. You must be authenticated to access it."
        if token not in self.server.gated[repository]:
            return 403, f"Access to model {repository} is restricted and you are not in the authorized list."
        return None

    def _file(self, name: str, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        """Send a file, or the range requested of it, complete or broken off."""
        start = 0
        requested = self.headers.get("Range")
        if requested and not self.server.ignores_ranges:
            self.server.ranges.append(requested)
            start = int(requested.removeprefix("bytes=").partition("-")[0])
            headers = headers | {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        cuts = self.server.cuts.get(name)
        if not with_body or not cuts:
            self._send(206 if start else 200, body[start:], headers, with_body)
            return
        self._send(206 if start else 200, body[start:], headers, with_body=False)
        self.wfile.write(body[start : start + cuts.pop(0)])
        self.wfile.flush()
        if name in self.server.stalled:
            self.server.stalling.set()
            self.server.released.wait()
        self.close_connection = True

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)
