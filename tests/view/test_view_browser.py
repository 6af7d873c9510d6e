"""The live page in a real browser: drawn on, dropped on, moved by keys, on a desk and a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import PHONE, SCHEMES, SIZES, assert_accessible, assert_fits, assert_quiet, visit
from canvases import HEIGHT, WIDTH, as_input, assert_shows, pixels
from served import served

from tiedexport.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tiedexport.bundle import Bundle
    from tiedexport.session import Session
    from tiedexport.view.server import ViewServer


@pytest.fixture(scope="module")
def pictures(bundles: dict[str, Bundle]) -> Iterator[ViewServer]:
    """The page of a bundle of pictures."""
    with served(bundles["conv"]) as server:
        yield server


@pytest.fixture(scope="module")
def numbers(bundles: dict[str, Bundle]) -> Iterator[ViewServer]:
    """The page of a bundle whose samples are no pictures."""
    with served(bundles["dense"]) as server:
        yield server


@pytest.fixture(scope="module")
def session(bundles: dict[str, Bundle]) -> Iterator[Session]:
    """What the page should show, from the runtime that it takes first."""
    with open_session(bundles["conv"], threads=1) as session:
        yield session


def settled(page: Page) -> None:
    """Wait until every runtime has answered about what is entered now."""
    page.wait_for_selector("#table[aria-busy=false]")


@SIZES
@SCHEMES
def test_it_is_quiet_fits_and_can_be_used_by_everyone(
    chromium: Browser, pictures: ViewServer, size: tuple[int, int], scheme: str
) -> None:
    with visit(chromium, pictures.url, size, scheme) as seen:
        settled(seen.page)
        assert_fits(seen.page)
        assert_accessible(seen.page)
        assert_quiet(seen)


@SIZES
def test_numbers_are_quiet_fit_and_can_be_used_by_everyone(
    chromium: Browser, numbers: ViewServer, size: tuple[int, int]
) -> None:
    with visit(chromium, numbers.url, size) as seen:
        settled(seen.page)
        assert_fits(seen.page)
        assert_accessible(seen.page)
        assert_quiet(seen)


@SIZES
def test_a_drawing_is_reconstructed(
    chromium: Browser, pictures: ViewServer, session: Session, size: tuple[int, int]
) -> None:
    with visit(chromium, pictures.url, size) as seen:
        page = seen.page
        settled(page)
        page.click("#clear")
        settled(page)
        blank = session.reconstruct(as_input(np.zeros((HEIGHT, WIDTH))))
        assert pixels(page, "drawing").max() == 0
        assert_shows(page, "reconstruction", blank)
        box = page.locator("#drawing").bounding_box()
        assert box is not None
        row = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 4, row)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 3 / 4, row, steps=5)
        page.mouse.up()
        settled(page)
        drawn = pixels(page, "drawing")
        assert (drawn[HEIGHT // 2, WIDTH // 4 : WIDTH * 3 // 4] == 255).all()
        assert drawn[0].max() == drawn[-1].max() == 0
        # The page sends what was drawn before it was rounded to pixels.
        assert_shows(page, "reconstruction", session.reconstruct(as_input(drawn / 255)), apart=2)
        assert_quiet(seen)


def test_a_picture_is_drawn_by_keys_alone(chromium: Browser, pictures: ViewServer) -> None:
    with visit(chromium, pictures.url) as seen:
        page = seen.page
        settled(page)
        page.locator("#drawing").focus()
        page.keyboard.press("Delete")
        for key in ("ArrowUp", "Space", "ArrowRight", "ArrowRight", "Shift+ArrowDown", "Space"):
            page.keyboard.press(key)
        assert page.locator("#status").inner_text() == "pen up, column 9, row 8"
        drawn = pixels(page, "drawing")
        assert drawn[3, 6] == drawn[3, 8] == drawn[7, 8] == 255
        assert drawn[:, 0].max() == 0
        assert page.locator("#pen").is_visible()
        page.keyboard.press("ArrowUp")
        np.testing.assert_array_equal(pixels(page, "drawing"), drawn)
        page.keyboard.press("Tab")
        assert not page.locator("#pen").is_visible()


def test_a_slider_moves_its_latent_by_keys(
    chromium: Browser, pictures: ViewServer, session: Session, bundles: dict[str, Bundle]
) -> None:
    golden = bundles["conv"].golden
    code = session.encode(golden["input"][:1]).copy()
    flat = golden["code"].reshape(len(golden["code"]), -1)
    latent = int(flat.var(0).argmax())
    with visit(chromium, pictures.url, PHONE) as seen:
        page = seen.page
        settled(page)
        assert_shows(page, "decoded", session.decode(code))
        slider = page.locator("#sliders input").first
        assert slider.get_attribute("id") == f"latent-{latent}"
        slider.focus()
        page.keyboard.press("End")
        moved = float(slider.input_value())
        assert moved > flat[:, latent].max()
        code.reshape(-1)[latent] = moved
        expected = session.decode(code)
        assert np.abs(expected - session.reconstruct(golden["input"][:1])).max() > 2 / 255
        assert_shows(page, "decoded", expected)
        page.wait_for_selector("#status:has-text('Decoded from the sliders: at most 0.')")
        page.click("#reset")
        assert_shows(page, "decoded", session.reconstruct(golden["input"][:1]))
        assert_quiet(seen)


def test_a_latent_of_one_s_choice_gets_a_slider(chromium: Browser, pictures: ViewServer) -> None:
    with visit(chromium, pictures.url) as seen:
        page = seen.page
        settled(page)
        ids = page.locator("#sliders input").evaluate_all("all => all.map((one) => one.id)")
        assert len(ids) == 8
        other = next(i for i in range(100) if f"latent-{i}" not in ids)
        page.fill("#latent", str(other))
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == f"latent-{other}"
        page.get_by_role("button", name=f"Remove the slider of latent {other}").press("Enter")
        assert page.locator("#sliders input").count() == 8
        page.fill("#latent", "1000000")
        page.keyboard.press("Enter")
        assert page.locator("#sliders input").count() == 8


_DROP = """async ([kind, name]) => {
  const canvas = new OffscreenCanvas(24, 18);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, 12, 18);
  const parts = kind === "image/png" ? [await canvas.convertToBlob()] : ["no picture"];
  const transfer = new DataTransfer();
  transfer.items.add(new File(parts, name, { type: kind }));
  for (const step of ["dragover", "drop"]) {
    document.querySelector("main").dispatchEvent(
      new DragEvent(step, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""


def test_an_image_is_dropped(chromium: Browser, pictures: ViewServer, session: Session) -> None:
    with visit(chromium, pictures.url) as seen:
        page = seen.page
        settled(page)
        page.evaluate(_DROP, ["image/png", "half.png"])
        half = np.zeros((HEIGHT, WIDTH))
        half[:, : WIDTH // 2] = 1
        assert_shows(page, "drawing", half, apart=0)
        assert_shows(page, "reconstruction", session.reconstruct(as_input(half)))
        assert_quiet(seen)


def test_a_file_that_is_no_image_is_told_so(chromium: Browser, pictures: ViewServer) -> None:
    with visit(chromium, pictures.url) as seen:
        page = seen.page
        settled(page)
        before = pixels(page, "drawing")
        page.evaluate(_DROP, ["text/plain", "notes.txt"])
        alert = page.get_by_role("alert")
        alert.wait_for()
        assert alert.inner_text() == "notes.txt is no image that this browser can read"
        np.testing.assert_array_equal(pixels(page, "drawing"), before)


def test_another_runtime_is_chosen(
    chromium: Browser, pictures: ViewServer, bundles: dict[str, Bundle]
) -> None:
    with visit(chromium, pictures.url) as seen:
        page = seen.page
        settled(page)
        page.select_option("#runtime", label="torch bf16")
        page.wait_for_selector("#status:has-text('torch bf16')")
        settled(page)
        assert page.locator("tr.base th").inner_text() == "torch bf16"
        x = bundles["conv"].golden["input"][:1]
        with open_session(bundles["conv"], runtime="torch", precision="bf16") as session:
            assert_shows(page, "reconstruction", session.reconstruct(x))
        assert_quiet(seen)


def test_what_cannot_run_is_listed_with_its_reason(chromium: Browser, pictures: ViewServer) -> None:
    with visit(chromium, pictures.url) as seen:
        settled(seen.page)
        rows = seen.page.evaluate("fetch('api/model').then((r) => r.json())")["rows"]
        told = seen.page.locator("#absent li").all_inner_texts()
        absent = [row for row in rows if row["reason"]]
        assert len(told) == len(absent)
        for line, row in zip(told, absent, strict=True):
            assert f"not run: {row['reason']}" in line
            assert line.startswith(row["runtime"])
        ready = [row for row in rows if not row["reason"]]
        names = [f"{row['runtime']} {row['precision']}" for row in ready]
        heads = seen.page.locator("#rows th").all_inner_texts()
        assert [head.partition("\n")[0] for head in heads] == names
        assert [head.partition("\n")[2] for head in heads] == [row["remark"] for row in ready]
        assert seen.page.locator("#runtime option").all_inner_texts() == names


def test_samples_that_are_no_pictures_are_numbers_and_words_say_so(
    chromium: Browser, numbers: ViewServer, bundles: dict[str, Bundle]
) -> None:
    golden = bundles["dense"].golden
    with visit(chromium, numbers.url) as seen:
        page = seen.page
        settled(page)
        assert "20 numbers, and no picture" in page.locator("#numbers-help").inner_text()
        assert not page.locator("#drawing").is_visible()
        page.get_by_role("button", name="Golden input 2").click()
        settled(page)
        cells = page.locator("#elements tr:last-child td").all_inner_texts()
        with open_session(bundles["dense"], threads=1) as session:
            found = session.reconstruct(golden["input"][1:2])
        expected = (golden["input"][1, -1], found[0, -1])
        np.testing.assert_allclose([float(cell) for cell in cells], expected, rtol=0, atol=6e-4)
        page.fill("#numbers", "1, 2, x")
        assert page.get_by_role("alert").inner_text() == "x is no finite number"
        page.fill("#numbers", "1 2 3")
        assert page.get_by_role("alert").inner_text() == "a sample has 20 numbers; there are 3"
        page.fill("#numbers", "0.5 " * 20)
        settled(page)
        page.wait_for_selector("#error", state="hidden")
        assert page.locator("#elements tr:first-child td").first.inner_text() == "0.500"
        page.locator("#sliders input").first.press("Home")
        assert_quiet(seen)


def test_a_server_that_is_gone_is_missed(chromium: Browser, pictures: ViewServer) -> None:
    with visit(chromium, pictures.url) as seen:
        settled(seen.page)
        seen.page.context.set_offline(True)
        seen.page.click("#clear")
        alert = seen.page.get_by_role("alert")
        alert.wait_for()
        assert alert.inner_text() == "the server does not answer: was it closed?"
        seen.page.context.set_offline(False)
        seen.page.click("#clear")
        alert.wait_for(state="hidden")
