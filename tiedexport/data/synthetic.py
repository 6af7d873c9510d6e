"""Digits that need no download: drawn from fonts, or the ones that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.data.extras import needed_for
from tiedexport.errors import MissingRuntimeError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

SIDE = 28
FONT_SIZE = 28
FONTS = (
    *(f"DejaVu{family}.ttf" for family in ("Sans", "SansMono", "Serif")),
    *(f"DejaVu{family}-Bold.ttf" for family in ("Sans", "SansMono", "Serif")),
    *(f"DejaVu{family}Oblique.ttf" for family in ("Sans-", "Sans-Bold")),
    *(f"DejaVuSansMono-{style}.ttf" for style in ("Oblique", "BoldOblique")),
    *(f"DejaVuSerif-{style}.ttf" for style in ("Italic", "BoldItalic")),
    *(f"STIXGeneral{style}.ttf" for style in ("", "Bol", "Italic", "BolIta")),
    *(f"cm{style}10.ttf" for style in ("b", "r", "ss", "ti", "tt")),
)
"""The fonts in matplotlib's wheel that have all ten digits, upright on the base line."""

ROTATION_RAD = 0.3
SCALE_RANGE = (0.8, 1.14)
SHEAR = 0.25
SHIFT_PIXELS = 3.0
"""Rotation, shear and shift are uniform in ± these; the scale is uniform in its range."""


def synthetic_digits(
    train: int, held_back: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw digits, each in a random font under a random affine map; bit-identical from a seed.

    Training and held-back digits come from two streams spawned from the seed, and each stream
    gives the same first images however many are asked for.

    Returns:
        Images, uint8 [train + held_back, 28, 28], white on black, and labels, int64, 0 to 9.

    Raises:
        MissingRuntimeError: Pillow, or matplotlib with its fonts, is not installed.
    """
    glyphs = _draw_glyphs()
    streams = np.random.SeedSequence(seed).spawn(2)
    parts = [
        _draw_digits(glyphs, np.random.Generator(np.random.PCG64(stream)), count)
        for stream, count in zip(streams, (train, held_back), strict=True)
    ]
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def sklearn_digits() -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    """Load scikit-learn's 1,797 handwritten digits.

    Returns:
        Images, [1797, 8, 8] in [0, 1] (the 17 grey levels divided by 16), and labels, int64.

    Raises:
        MissingRuntimeError: scikit-learn is not installed.
    """
    with needed_for("sklearn-digits", "scikit-learn"):
        from sklearn.datasets import load_digits
    digits = load_digits()
    return digits.images / 16, digits.target.astype(np.int64)


def _draw_digits(
    glyphs: list[list[Image.Image]], rng: np.random.Generator, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from PIL import Image

    draws = rng.random((count, 7))
    fonts = (draws[:, 0] * len(glyphs)).astype(np.int64)
    labels = (draws[:, 1] * 10).astype(np.int64)
    images = np.empty((count, SIDE, SIDE), np.uint8)
    for image, font, label, coefficients in zip(
        images, fonts, labels, _inverse_affine(draws[:, 2:]).tolist(), strict=True
    ):
        image[:] = glyphs[font][label].transform(
            (SIDE, SIDE), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
        )
    return images, labels


def _inverse_affine(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Uniform draws [n, 5] → Pillow's coefficients [n, 6], which map an output pixel to a glyph's.

    A digit is sheared, rotated and scaled about its centre, then shifted; Pillow wants the inverse.
    """
    angle = ROTATION_RAD * (2 * draws[:, 0] - 1)
    scale = SCALE_RANGE[0] + (SCALE_RANGE[1] - SCALE_RANGE[0]) * draws[:, 1]
    shear = SHEAR * (2 * draws[:, 2] - 1)
    shift = SHIFT_PIXELS * (2 * draws[:, 3:5] - 1)
    cos, sin = np.cos(angle), np.sin(angle)
    zoom = 1 / scale
    a, b = zoom * (cos + shear * sin), zoom * (sin - shear * cos)
    d, e = -zoom * sin, zoom * cos
    centre = SIDE / 2
    x, y = (centre + shift).T
    coefficients = np.stack([a, b, centre - a * x - b * y, d, e, centre - d * x - e * y], axis=1)
    # The last bit of a cosine differs between machines; it must not reach a pixel.
    rounded: NDArray[np.float64] = np.round(coefficients * 2**16) / 2**16
    return rounded


def _draw_glyphs() -> list[list[Image.Image]]:
    """One centred picture of each digit in each font: [font][digit]."""
    with needed_for("synthetic-digits", "Pillow"):
        from PIL import Image, ImageDraw, ImageFont
    with needed_for("synthetic-digits", "matplotlib (for its fonts)"):
        import matplotlib
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")

    def draw(font: ImageFont.FreeTypeFont, digit: str) -> Image.Image:
        paper = Image.new("L", (2 * SIDE, 2 * SIDE))
        ImageDraw.Draw(paper).text((SIDE / 2, SIDE / 2), digit, fill=255, font=font)
        ink = paper.crop(paper.getbbox())
        image = Image.new("L", (SIDE, SIDE))
        image.paste(ink, ((SIDE - ink.width) // 2, (SIDE - ink.height) // 2))
        return image

    glyphs = []
    for name in FONTS:
        try:
            # Layout.BASIC, because Raqm is not in every build of Pillow and shapes otherwise.
            font = ImageFont.truetype(
                folder / name, FONT_SIZE, layout_engine=ImageFont.Layout.BASIC
            )
        except OSError as error:
            raise MissingRuntimeError(
                "synthetic-digits needs the fonts that ship with matplotlib",
                where=folder / name,
                got=str(error),
                hint="pip install --force-reinstall matplotlib",
            ) from error
        glyphs.append([draw(font, digit) for digit in "0123456789"])
    return glyphs
