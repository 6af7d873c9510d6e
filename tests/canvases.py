"""What canvases of the live page show, of pictures of one size."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from playwright.sync_api import Page

HEIGHT, WIDTH = 9, 12
_PATIENCE_S = 20


def pixels(page: Page, canvas: str) -> np.ndarray:
    """What a canvas shows, uint8 [height, width]."""
    values = page.evaluate(
        """(id) => {
          const shown = document.getElementById(id);
          // Of a copy, as Chromium warns of reading the page's own again and again.
          const copy = new OffscreenCanvas(shown.width, shown.height);
          const context = copy.getContext("2d", { willReadFrequently: true });
          context.drawImage(shown, 0, 0);
          return [...context.getImageData(0, 0, copy.width, copy.height).data];
        }""",
        canvas,
    )
    return np.array(values, np.uint8).reshape(HEIGHT, WIDTH, 4)[..., 0]


def assert_shows(page: Page, canvas: str, values: np.ndarray, apart: float = 0.51) -> None:
    """A canvas comes to show these values, [9·12] of any shape, to the rounding of a pixel."""
    expected = values.astype(np.float64).reshape(HEIGHT, WIDTH).clip(0, 1) * 255
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end and np.abs(pixels(page, canvas) - expected).max() > apart:
        page.wait_for_timeout(20)
    np.testing.assert_allclose(pixels(page, canvas), expected, rtol=0, atol=apart)


def as_input(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(1, 1, HEIGHT, WIDTH)
