"""The report in a real browser: quiet, within the window, for everyone; the first screen is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import handmade
import pytest
from browser import DESK, SCHEMES, SIZES, assert_accessible, assert_fits, assert_quiet, visit
from served import served

from tiedexport import reporting
from tiedexport.report import report

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tiedexport.bundle import Bundle


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with the figures of other verbs."""
    folder = tmp_path_factory.mktemp("measured")
    return report(
        handmade.bundle(folder / "m.tied"),
        verify=handmade.verify_result(),
        bench=handmade.bench_result(),
        output=folder / "report.html",
    )


@pytest.fixture(scope="module")
def observed(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that watched a model of pictures at work."""
    folder = tmp_path_factory.mktemp("observed")
    return reporting.write(bundles["conv"].path, [], folder / "report.html")


def drawn(page: Page) -> None:
    """Wait until every chart is a live one."""
    page.wait_for_selector("svg.marks")


@SIZES
@SCHEMES
def test_figures_are_quiet_fit_and_can_be_read_by_everyone(
    chromium: Browser, measured: Path, size: tuple[int, int], scheme: str
) -> None:
    with visit(chromium, measured.as_uri(), size, scheme) as seen:
        drawn(seen.page)
        assert_fits(seen.page)
        assert_accessible(seen.page)
        assert_quiet(seen)


@SIZES
def test_samples_are_quiet_fit_and_can_be_read_by_everyone(
    chromium: Browser, observed: Path, size: tuple[int, int]
) -> None:
    with visit(chromium, observed.as_uri(), size) as seen:
        drawn(seen.page)
        assert_fits(seen.page)
        assert_accessible(seen.page)
        assert_quiet(seen)


def test_the_first_screen_answers_without_scrolling(chromium: Browser, measured: Path) -> None:
    with visit(chromium, measured.as_uri(), DESK) as seen:
        drawn(seen.page)
        box = seen.page.locator(".answers").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= DESK[1]


def test_the_live_page_serves_it_in_a_sandbox_where_its_charts_live(
    chromium: Browser, bundles: dict[str, Bundle], measured: Path
) -> None:
    with (
        served(bundles["dense"], measured) as server,
        visit(chromium, f"{server.url}report") as seen,
    ):
        drawn(seen.page)
        assert seen.page.evaluate("origin") == "null"
        assert_quiet(seen)
