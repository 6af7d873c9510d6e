"""Which requests the server refuses before it reads them.

A page of any other site may ask for what listens on this machine: by a name of its own that it
lets point to 127.0.0.1 (DNS rebinding), or straight from its scripts. The first shows in `Host`,
the second in `Origin`, which every browser sends with a POST and no script can alter.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from tiedexport.errors import UsageError

if TYPE_CHECKING:
    from email.message import Message

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""With every answer: the page loads nothing but its own files, and no other page loads it."""

REPORT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'none'; sandbox allow-scripts allow-downloads"
)
"""A report brings its scripts along; in a sandbox they are strangers to this server."""


class RefusedError(UsageError):
    """A request that gets no answer but this, with its status of HTTP."""

    def __init__(
        self,
        status: HTTPStatus,
        what: str,
        *,
        got: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.status = status
        super().__init__(what, got=got, expected=expected, hint=hint)


def refuse_other_hosts(headers: Message, host: str) -> None:
    """Let through only what was sent to this very host and port.

    Raises:
        RefusedError: it was sent to another name.
    """
    if (got := headers.get_all("Host")) != [host]:
        raise RefusedError(
            HTTPStatus.MISDIRECTED_REQUEST,
            "this server answers under one name only",
            got=", ".join(got or ["no Host"]),
            expected=host,
            hint=f"open http://{host}/; through a tunnel, take the same port on both sides",
        )


def refuse_other_origins(headers: Message, host: str) -> None:
    """Let through only what a page of this server sent.

    Raises:
        RefusedError: another page sent it, or something that is no page of a browser.
    """
    if (got := headers.get_all("Origin")) != [f"http://{host}"]:
        raise RefusedError(
            HTTPStatus.FORBIDDEN,
            "only a page of this server may ask",
            got=", ".join(got or ["no Origin"]),
            expected=f"http://{host}",
        )


def length_of_body(headers: Message, limit_bytes: int) -> int:
    """How many bytes to read.

    Raises:
        RefusedError: the length is missing or too large, or the body is no JSON.
    """
    if headers.get_content_type() != "application/json":
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "not JSON",
            got=headers.get("Content-Type"),
            expected="application/json",
        )
    length = headers.get("Content-Length", "")
    if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in headers:
        raise RefusedError(
            HTTPStatus.LENGTH_REQUIRED, "a request of unknown length", got=length or "no length"
        )
    if int(length) > limit_bytes:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "more than a sample or a code of this bundle",
            got=f"{length} bytes",
            expected=f"{limit_bytes} at most",
        )
    return int(length)
