"""The server of the live page: 127.0.0.1 only, three kinds of answers, no file by its path.

It is the standard library's: a page for one person on one machine needs no framework, and
deploying keeps its few dependencies. What `http.server` leaves to others is in `guard`.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any

import msgspec

from tiedexport.errors import (
    BadInputError,
    MissingRuntimeError,
    RuntimeFailedError,
    TiedExportError,
    UsageError,
)
from tiedexport.view import guard
from tiedexport.view.guard import RefusedError
from tiedexport.view.records import Refusal, decode_ask, largest_ask_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from msgspec import Struct

    from tiedexport.view.records import Answer, Ask
    from tiedexport.view.sessions import Sessions

_log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
_SILENT_CLIENT_S = 30
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_STATUS: dict[type[TiedExportError], HTTPStatus] = {
    BadInputError: HTTPStatus.BAD_REQUEST,
    UsageError: HTTPStatus.NOT_FOUND,
    MissingRuntimeError: HTTPStatus.SERVICE_UNAVAILABLE,
    RuntimeFailedError: HTTPStatus.SERVICE_UNAVAILABLE,
}


class ViewServer(ThreadingHTTPServer):
    """Listens as soon as it is made; `serve_forever` answers.

    Args:
        sessions: what answers; it is not closed with the server.
        port: 0 for a free one.
        report: an HTML file to show.

    Raises:
        UsageError: the port is taken, or not allowed.
    """

    daemon_threads = True

    def __init__(self, sessions: Sessions, port: int = 0, report: Path | None = None) -> None:
        self.report = report
        model = sessions.describe(report=report is not None)
        self.pages = {**_static(), "/api/model": _json(model)}
        self.limit_bytes = largest_ask_bytes(*sessions.inputs)
        self.verbs: Mapping[str, Callable[[Ask], Answer]] = {
            "/api/reconstruct": sessions.reconstruct,
            "/api/decode": sessions.decode,
        }
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise _no_port(port, error) from error
        # Without its port where that is HTTP's own: so do browsers.
        self.host = ADDRESS if self.server_port == 80 else f"{ADDRESS}:{self.server_port}"

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self.host}/"

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of a name for the address, which asks the network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault: the next one is served."""
        _log.info("a request from %s broke off", client_address, exc_info=True)


def _no_port(port: int, error: OSError | OverflowError) -> UsageError:
    taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    return UsageError(
        "the port is taken" if taken else "cannot listen on this port",
        where=ADDRESS,
        got=port if taken else f"{port}: {error}",
        expected="a free port",
        hint="leave out --port, and a free one is taken",
    )


@dataclass(frozen=True)
class _Page:
    """What is sent: its type, its bytes, and headers beside everyone's or in their place."""

    kind: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def _json(record: Struct, headers: Mapping[str, str] | None = None) -> _Page:
    return _Page("application/json", msgspec.json.encode(record), headers or {})


def _static() -> dict[str, _Page]:
    """Path of each file of the page → what it holds; no path leads to the disk."""
    pages = {
        f"/{file.name}": _Page(_TYPES[Path(file.name).suffix], file.read_bytes())
        for file in (files("tiedexport.view") / "static").iterdir()
    }
    return {"/": pages.pop("/index.html"), **pages}


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tiedexport", ""
    timeout = _SILENT_CLIENT_S

    def do_GET(self) -> None:
        """The page, its files, what it shows first, the report."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """What a runtime makes of a sample or a code."""
        self._answer(self._post)

    def _answer(self, method: Callable[[], _Page]) -> None:
        try:
            guard.refuse_other_hosts(self.headers, self.server.host)
            page = method()
        except RefusedError as error:
            self._refuse(error.status, error)
        except TiedExportError as error:
            found = (status for kind, status in _STATUS.items() if isinstance(error, kind))
            self._refuse(next(found, HTTPStatus.INTERNAL_SERVER_ERROR), error)
        except Exception:
            _log.exception("a fault of tiedexport")
            self.send_error(
                HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of tiedexport; see its terminal"
            )
        else:
            self._send(HTTPStatus.OK, page)

    def _get(self) -> _Page:
        path = self.path.partition("?")[0]
        if path == "/report" and self.server.report is not None:
            policy = {"Content-Security-Policy": guard.REPORT_POLICY}
            return _Page(_TYPES[".html"], _contents(self.server.report), policy)
        if path not in self.server.pages:
            raise _no_such(path, self.server.verbs, "POST")
        return self.server.pages[path]

    def _post(self) -> _Page:
        guard.refuse_other_origins(self.headers, self.server.host)
        length = guard.length_of_body(self.headers, self.server.limit_bytes)
        if self.path not in self.server.verbs:
            raise _no_such(self.path, self.server.pages, "GET")
        ask = decode_ask(self.rfile.read(length))
        return _json(self.server.verbs[self.path](ask))

    def _send(self, status: HTTPStatus, page: _Page) -> None:
        self.send_response(status)
        own = {"Content-Type": page.kind, "Content-Length": str(len(page.body))}
        for name, value in {**guard.HEADERS, **own, **page.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page.body)

    def _refuse(self, status: HTTPStatus, error: TiedExportError) -> None:
        words = (str(word or "") for word in (error.got, error.expected, error.hint))
        # What is left of the request unread must not be taken for the next one.
        self.close_connection = True
        self._send(status, _json(Refusal(error.what, *words), {"Connection": "close"}))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses by itself, as JSON like everything else."""
        status = HTTPStatus(code)
        self._refuse(status, TiedExportError(message or status.phrase))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are of interest only to who asks for what libraries log."""
        _log.info(format, *args)


def _contents(report: Path) -> bytes:
    try:
        return report.read_bytes()
    except OSError as error:
        raise RefusedError(
            HTTPStatus.NOT_FOUND, "the report is gone", got=error.strerror
        ) from error


def _no_such(path: str, others: Mapping[str, object], method: str) -> RefusedError:
    if path in others:
        return RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "not by this method", expected=method)
    return RefusedError(HTTPStatus.NOT_FOUND, "there is no such page", got=path[:80])
