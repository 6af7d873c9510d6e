"""The documentation builds without a warning, needs no network, and its code runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from browser import DESK, PHONE, assert_accessible, assert_fits, visit
from doc_pages import DOCS, ROOT, TUTORIAL, Page, blocks
from test_public_api import VERBS

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser

BLOCKS = {
    f"{path.relative_to(DOCS)}:{line}-{language}": (path, line) for path, line, language in blocks()
}


@pytest.fixture(scope="session")
def page_at(tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> Callable[[Path], Page]:
    """Path → its page; all but the tutorial begin with what the tutorial left."""
    pages: dict[Path, Page] = {}

    def find(path: Path) -> Page:
        if path not in pages:
            folder = tmp_path_factory.mktemp(path.stem)
            if path != TUTORIAL:
                tutorial = find(TUTORIAL)
                tutorial.run()
                shutil.copytree(tutorial.folder, folder, dirs_exist_ok=True)
            pages[path] = Page(path, folder)
        return pages[path]

    return find


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs(block: str, page_at: Callable[[Path], Page]) -> None:
    path, line = BLOCKS[block]
    page_at(path).run(line)


class _Html(HTMLParser):
    """The places of a built page that can be linked to, its links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.ids += [found["id"]] if "id" in found else []
        self.names |= {found["name"]} if "name" in found else set()
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        elif "href" in found and found.get("rel") != "index":
            self.loaded.add(found["href"])
        if "src" in found:
            self.loaded.add(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, _Html]:
    """Each page of the site, built as `make docs` does."""
    out = tmp_path_factory.mktemp("site")
    words = ["-m", "sphinx", "-W", "--keep-going", "-q", "-d", out / "doctrees", DOCS, out / "html"]
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return {path: _Html(path.read_text()) for path in (out / "html").rglob("*.html")}


def test_every_link_within_the_site_leads_somewhere(site: dict[Path, _Html]) -> None:
    assert len(site) > 15
    for path, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {link}"
            if parts.fragment:
                places = {*site[target].ids, *site[target].names}
                assert unquote(parts.fragment) in places, f"{path.name}: {link}"


def test_no_place_of_a_page_has_the_name_of_another(site: dict[Path, _Html]) -> None:
    for path, page in site.items():
        assert len(page.ids) == len(set(page.ids)), path.name


def test_no_page_loads_anything_from_a_network(site: dict[Path, _Html]) -> None:
    for path, page in site.items():
        for resource in page.loaded:
            parts = urlsplit(resource)
            assert not parts.scheme or parts.scheme == "data", f"{path.name}: {resource}"
            assert not parts.netloc, f"{path.name}: {resource}"


def test_no_style_loads_anything_from_a_network(site: dict[Path, _Html]) -> None:
    folder = next(path for path in site if path.name == "index.html").parent
    styles = list(folder.rglob("*.css"))
    assert styles
    for style in styles:
        text = style.read_text()
        assert "url(http" not in text, style.name
        assert "url(//" not in text, style.name
        assert "@import" not in text or "@import url(" not in text, style.name


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
@pytest.mark.parametrize("page", ["tutorial", "explanation/figures"])
def test_a_page_fits_its_window_and_serves_a_keyboard(
    site: dict[Path, _Html], chromium: Browser, page: str, size: tuple[int, int], scheme: str
) -> None:
    (path,) = (path for path in site if path.as_posix().endswith(f"/html/{page}.html"))
    with visit(chromium, path.as_uri(), size, scheme) as seen:
        assert seen.console == []
        assert_fits(seen.page)
        assert_accessible(seen.page)


def test_every_public_function_is_in_the_reference(site: dict[Path, _Html]) -> None:
    (python,) = (page for path, page in site.items() if path.match("reference/python.html"))
    for name in VERBS:
        assert {f"tiedexport.{name}", f"tiedexport.{name.partition('.')[2]}"} & {*python.ids}, name
