"""Pages in a real headless Chromium: what they log, what they load, how they fit, who can use them.

A test takes the fixture `chromium` of conftest, opens a page with `visit`, and asks `assert_quiet`,
`assert_fits` and `assert_accessible` of it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

DESK, PHONE = (1440, 900), (390, 844)
SIZES = pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])

_SERIOUS = ("serious", "critical")


def why_there_is_none() -> str | None:
    """What is missing to drive a browser; None if nothing is."""
    if shutil.which("chromium") is None:
        return "no Chromium: apt-get install chromium"
    for module in ("playwright", "axe_playwright_python"):
        if importlib.util.find_spec(module) is None:
            return f"no {module}: pip install 'tiedexport[dev]'"
    return None


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Debian's Chromium, without a window and without a way to any other machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        with contextlib.closing(browser):
            yield browser


@dataclass
class Visit:
    """An open page, every line of its console, and every address that it asked for."""

    page: Page
    own: str
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextlib.contextmanager
def visit(
    chromium: Browser, url: str, size: tuple[int, int] = DESK, scheme: Any = "light"
) -> Iterator[Visit]:
    """Open a page, of a server or of a file, in a window of its own.

    Args:
        chromium: the browser.
        url: `http://127.0.0.1:port/…` or `file:///…`.
        size: width and height of the window in pixels.
        scheme: "light" or "dark", as the user's system prefers.
    """
    width, height = size
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    with contextlib.closing(context):
        parts = urlsplit(url)
        own = url if parts.scheme == "file" else f"{parts.scheme}://{parts.netloc}/"
        seen = Visit(context.new_page(), own)
        seen.page.on("console", lambda line: seen.console.append(f"{line.type}: {line.text}"))
        seen.page.on("pageerror", lambda error: seen.console.append(f"error: {error}"))
        context.on("request", lambda request: seen.requests.append(request.url))
        seen.page.goto(url)
        yield seen


def assert_quiet(seen: Visit) -> None:
    """Nothing in the console, and nothing asked of any other place than the page's own."""
    assert seen.console == []
    assert seen.requests
    own = (seen.own, "data:", "blob:")
    assert [url for url in seen.requests if not url.startswith(own)] == []


def assert_fits(page: Page) -> None:
    """The page is no wider than the window."""
    widest = page.evaluate(
        """() => [...document.body.querySelectorAll("*")]
          .map((e) => [e.getBoundingClientRect().right, e.tagName, e.id, e.className.toString()])
          .sort((a, b) => b[0] - a[0])[0]"""
    )
    wide, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window, f"{wide} pixels in a window of {window}; the widest: {widest}"


def assert_accessible(page: Page) -> None:
    """axe-core finds nothing serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    faults = [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: "
        + "; ".join(str(node["html"])[:120] for node in rule["nodes"][:3])
        for rule in found
        if rule["impact"] in _SERIOUS
    ]
    assert faults == []
