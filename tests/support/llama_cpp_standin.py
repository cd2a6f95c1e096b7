"""A stand-in for the package xllamacpp: a server whose answers the test sets, on a loopback port."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace
from typing import ClassVar


class StandIn:
    """Answers every request. The class holds what the test sets and what it was asked.

    A request for a stream gets `events`, each a line of a server's answer, then waits for `released`; another
    one is answered with all the tokens that it asks for, after a prefill.
    """

    params: SimpleNamespace
    requests: ClassVar[list[dict]] = []
    events: ClassVar[list[dict]] = []
    status = 200
    released = threading.Event()
    gone = threading.Event()

    def __init__(self, params: SimpleNamespace) -> None:
        if "broken" in params.model.path:
            raise RuntimeError("failed to load model")
        StandIn.params = params
        StandIn.requests = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.listening_address = f"http://127.0.0.1:{self._server.server_port}"

    def handle_completions(self, request: dict) -> dict:
        """Answer in one piece."""
        StandIn.requests.append(request)
        return {"timings": {"predicted_n": request["n_predict"], "predicted_ms": 20.0}}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        StandIn.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(StandIn.status)
        self.end_headers()
        try:
            for event in StandIn.events:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            while not StandIn.released.wait(0.02):
                self.wfile.write(b": still there\n\n")
        except OSError:
            StandIn.gone.set()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def install(monkeypatch) -> type[StandIn]:
    """Put the stand-in in place of the package for one test."""
    package = ModuleType("xllamacpp")
    package.__spec__ = SimpleNamespace()  # found by find_spec
    package.Server = StandIn
    package.CommonParams = lambda: SimpleNamespace(
        model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace()
    )
    StandIn.events, StandIn.status = [], 200
    StandIn.released, StandIn.gone = threading.Event(), threading.Event()
    StandIn.released.set()
    monkeypatch.setitem(sys.modules, "xllamacpp", package)
    return StandIn


def events_of(ids: list[int], end: str = "eos") -> list[dict]:
    """Events of an answer with these ids."""
    events = [{"tokens": [token_id], "stop": False} for token_id in ids]
    return [*events, {"tokens": [], "stop": True, "stop_type": end}]
