"""A live page that is served while a test looks at it, and requests as no browser sends them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.view.server import ViewServer
from tiedexport.view.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tiedexport.bundle import Bundle


@contextlib.contextmanager
def served(bundle: Bundle, report: Path | None = None) -> Iterator[ViewServer]:
    """The server of a bundle's page, in a thread of its own."""
    with Sessions(bundle) as sessions, ViewServer(sessions, report=report) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Response:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    server: ViewServer,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str | None] | None = None,
) -> Response:
    """A request with a browser's headers, but for those given; None leaves one out."""
    own: dict[str, str | None] = {"Host": server.host}
    if method == "POST":
        own |= {
            "Origin": f"http://{server.host}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body or b"")),
        }
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {**own, **(headers or {})}.items():
            for one in (value or "").split("\n") if value is not None else ():
                connection.putheader(name, one)
        connection.endheaders(body)
        response = connection.getresponse()
        return Response(response.status, response.headers, response.read())


def wire(array: np.ndarray) -> str:
    """An array as the page sends it."""
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def read(text: str) -> np.ndarray:
    """An array as the page gets it, float32 [n]."""
    return np.frombuffer(base64.b64decode(text), "<f4")


def ask(server: ViewServer, verb: str, array: np.ndarray, **row: str) -> Response:
    """Ask as the page does; by default what "auto" takes."""
    chosen = request(server, "GET", "/api/model").json
    first = chosen["rows"][chosen["first"]]
    row = {"runtime": first["runtime"], "precision": first["precision"], **row}
    body = json.dumps({**row, "values": wire(array)}).encode()
    return request(server, "POST", f"/api/{verb}", body)
