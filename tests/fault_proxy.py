"""A proxy that spoils chosen requests on their way to a real server, and counts them all.

    with proxied(url) as proxy:
        proxy.script(Fault("drop_after", method="POST", path="/import", nth=2))
        Client(proxy.url, token)...

Kinds of faults:

- `drop_before`: the connection breaks before the server hears of the request
- `drop_after`: the server does what it was asked, and its answer is lost
- `answer`: `status` and `body` instead of the server, which hears nothing
- `delay`: the server is asked at once, and answered for `seconds` later
- `ask_late`: the server is asked `seconds` later, whether or not anybody still waits
- `half`: the answer breaks off in the middle of its body
- `call`: `action()` runs before the server is asked, and again nothing is spoilt
- `call_after`: `action()` runs after the server has done it, and its answer is lost
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Kind = Literal[
    "drop_before", "drop_after", "answer", "delay", "ask_late", "half", "call", "call_after"
]
HTML = "<!DOCTYPE html><html><body>Please sign in</body></html>"
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass
class Fault:
    """What befalls matching requests: the `nth` of them (1: the first), or the next `times`."""

    kind: Kind
    method: str = ""
    path: str = ""
    nth: int = 1
    times: int = 1
    status: int = 500
    body: str = "{}"
    content_type: str = "application/json"
    seconds: float = 0.0
    action: Callable[[], None] = lambda: None
    seen: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Count a request, if it matches, and tell whether it is to be spoilt."""
        if self.method not in ("", method) or self.path not in path:
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


def html_page(**where: Any) -> Fault:
    """A sign-in page with status 200 in place of an answer."""
    return Fault("answer", status=200, body=HTML, content_type="text/html", **where)


@dataclass
class Proxy:
    """A running proxy; `requests` are (method, path with query) of all that came."""

    url: str
    target: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    busy: int = 0

    def script(self, *faults: Fault) -> None:
        """Forget what was to befall and what was counted; from now on, this."""
        with self.lock:
            self.faults, self.requests = list(faults), []

    def count(self, method: str = "", path: str = "") -> int:
        """How many requests of a kind came since the last script."""
        return sum(method in ("", m) and path in p for m, p in self.requests)

    def settle(self) -> None:
        """Wait until the server has answered everything that it was asked through here."""
        while self.busy:
            time.sleep(0.01)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    prefix: str

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        proxy = self.proxy
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        with proxy.lock:
            proxy.requests.append((self.command, self.path))
            fault = next((f for f in proxy.faults if f.strikes(self.command, self.path)), None)
            proxy.busy += 1
        try:
            with suppress(OSError):
                self._answer(fault, body)
        finally:
            with proxy.lock:
                proxy.busy -= 1

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _serve

    def _answer(self, fault: Fault | None, body: bytes) -> None:
        kind = fault.kind if fault is not None else ""
        if fault is None or kind in ("delay", "half", "drop_after", "call_after"):
            pass
        elif kind == "drop_before":
            return self._drop()
        elif kind == "answer":
            head = [("Content-Type", fault.content_type)]
            return self._send(fault.status, head, fault.body.encode())
        elif kind == "ask_late":
            time.sleep(fault.seconds)
        elif kind == "call":
            fault.action()
        status, head, content = self._ask(body)
        if fault is not None and kind == "delay":
            time.sleep(fault.seconds)
        if fault is not None and kind == "call_after":
            fault.action()
        if kind in ("drop_after", "call_after"):
            return self._drop()
        return self._send(status, head, content, whole=kind != "half")

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        place = urlsplit(self.proxy.target)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
        keep = {k: v for k, v in self.headers.items() if k.lower() not in (*_HOP, "host")}
        keep["Accept-Encoding"] = "identity"
        try:
            connection.request(self.command, self.path.removeprefix(self.prefix), body, keep)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _send(
        self, status: int, head: list[tuple[str, str]], content: bytes, whole: bool = True
    ) -> None:
        self.send_response_only(status)
        for name, value in head:
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if whole else content[: len(content) // 2])
        if not whole:
            self._drop()

    def _drop(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(2)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed


@contextmanager
def proxied(target: str, prefix: str = "") -> Iterator[Proxy]:
    """Run a proxy before the server at `target`, which it shows below `prefix` ("/ls")."""
    handler = type("Handler", (_Handler,), {"prefix": prefix})
    server = _Server(("127.0.0.1", 0), handler)
    proxy = Proxy(f"http://127.0.0.1:{server.server_port}{prefix}", target.rstrip("/"))
    handler.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
