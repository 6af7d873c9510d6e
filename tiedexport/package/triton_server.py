"""A running server is told to load a new version, in an order that mixes no answers."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tiedexport.errors import MissingRuntimeError, RuntimeFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOAD_S = 600


def load(server: str, models: Sequence[str]) -> None:
    """Have each model loaded, the next when the one before is ready.

    Args:
        server: URL of the server's HTTP port.
        models: names, in order.

    Raises:
        MissingRuntimeError: nobody answers there.
        RuntimeFailedError: the server could not load a model; those after it stay as they were.
    """
    for model in models:
        place = f"{server.rstrip('/')}/v2/repository/models/{model}/load"
        try:
            with urllib.request.urlopen(place, data=b"{}", timeout=_LOAD_S):
                pass
        except urllib.error.HTTPError as error:
            raise RuntimeFailedError(
                "the server did not load a model",
                where=place,
                got=_told(error),
                hint="tritonserver --model-control-mode=explicit is what can be told",
            ) from error
        except (OSError, http.client.HTTPException) as error:  # the latter of what is not HTTP
            raise MissingRuntimeError(
                "no server answers",
                where=server,
                got=str(error) or type(error).__name__,
                expected="Triton's HTTP port",
                hint="all is written: start the server, or repeat the command when it runs",
            ) from error


def refuse_no_url(server: str) -> None:
    """Refuse what is no URL.

    Raises:
        UsageError: it is not one of HTTP.
    """
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("not the URL of a server", got=repr(server), expected="http://HOST:8000")


def _told(error: urllib.error.HTTPError) -> str:
    """The server's own words."""
    answer = error.read()
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code}"
