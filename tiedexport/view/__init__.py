"""`view`: a live page of a bundle on this machine."""

from __future__ import annotations

import contextlib
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.errors import UsageError
from tiedexport.view.server import ViewServer
from tiedexport.view.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Callable


def view(
    bundle: Bundle | str | Path,
    *,
    port: int = 0,
    browser: bool = True,
    report: str | Path | None = None,
    say: Callable[[str], object] = print,
) -> None:
    """Serve the live page of a bundle on 127.0.0.1 until Ctrl-C.

    Args:
        bundle: an open bundle or its path.
        port: where to listen; 0 takes a free port.
        browser: open the page in the user's browser.
        report: the HTML file that `report` wrote; by default `report.html` beside the bundle, if
            it is the bundle's.
        say: told the page's address, once it can be opened.

    Raises:
        BundleError: the bundle is damaged, or none.
        MissingRuntimeError: no runtime can run it here.
        UsageError: the port is taken, or there is no such report.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    shown = _own_report(opened) if report is None else _given_report(Path(report))
    with Sessions(opened) as sessions, ViewServer(sessions, port, shown) as server:
        say(server.url)
        if browser:
            # It may wait for a browser of the terminal to end.
            threading.Thread(target=webbrowser.open, args=[server.url], daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _given_report(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(
            "no such report", got=path, hint="tiedexport report NAME.tied -o report.html"
        )
    return path


def _own_report(bundle: Bundle) -> Path | None:
    """`report.html` beside the bundle, if its title names the bundle."""
    path = bundle.path.parent / "report.html"
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return None
    return path if f"<title>{bundle.manifest.name}:".encode() in head else None
