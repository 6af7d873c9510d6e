"""Arrays as images: shape, mosaic, PNG bytes."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.errors import ArrayError
from tiedexport.report.charts import SERIES, require_altair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.results import Reconstruction


_TOO_DARK, _TOO_BRIGHT = (
    np.frombuffer(bytes.fromhex(colour[1:]), np.uint8).astype(np.float32) / 255
    for colour in SERIES[:2]
)
"""Red, green and blue of the ends of a difference, [3]."""


def as_images(array: np.ndarray, sample_shape: Sequence[int]) -> np.ndarray:
    """Samples as grey or colour images in [0, 1], whatever shape the model takes them in.

    Args:
        array: [n, ...] with as many elements a sample as `sample_shape` has.
        sample_shape: (height, width), (channels, height, width), or anything else, which is laid
            out row by row in a near-square padded with black.

    Returns:
        float32 [n, height, width], or [n, height, width, 3] for three channels. Other numbers of
        channels are averaged. Values outside [0, 1] are clipped; NaN becomes 0.

    Raises:
        ArrayError: the samples do not have that many elements.
    """
    shape, count = tuple(sample_shape), math.prod(sample_shape)
    if array.ndim == 0 or array.size != len(array) * count:
        raise ArrayError("not samples of that shape", got=list(array.shape), expected=list(shape))
    pixels = np.nan_to_num(array.reshape(len(array), count).astype(np.float32)).clip(0, 1)
    if len(shape) == 2:
        return pixels.reshape(-1, *shape)
    if len(shape) == 3:
        channels = pixels.reshape(-1, *shape)
        return np.moveaxis(channels, 1, -1) if shape[0] == 3 else channels.mean(1)
    width = math.isqrt(count - 1) + 1
    height = -(-count // width)
    padded = np.pad(pixels, ((0, 0), (0, height * width - count)))
    return padded.reshape(-1, height, width)


def from_record(record: Reconstruction) -> np.ndarray:
    """The images of a record as float32 in [0, 1], [n, height, width] or [n, height, width, 3]."""
    pixels = np.frombuffer(record.pixels, np.uint8).reshape(record.shape) / np.float32(255)
    channels_last = pixels.ndim == 4 and pixels.shape[-1] == 3
    return pixels if channels_last else as_images(pixels, pixels.shape[1:])


def mosaic(images: np.ndarray, gap: float = np.nan) -> np.ndarray:
    """Images side by side, one column of `gap` between them: [height, n·(width + 1) - 1, ...]."""
    apart = np.pad(
        images.astype(np.float32),
        ((0, 0), (0, 0), (0, 1), *(((0, 0),) * (images.ndim - 3))),
        constant_values=gap,
    )
    return np.concatenate(list(apart), axis=1)[:, :-1]


def strip(shown: np.ndarray) -> bytes:
    """Images side by side as PNG bytes; arguments as of `mosaic`."""
    return png(mosaic(shown))


def difference_strip(difference: np.ndarray, amplified: float) -> bytes:
    """Signed differences side by side as PNG bytes: too dark in blue, too bright in orange.

    Args:
        difference: [n, height, width], or [n, height, width, 3], whose colours are averaged.
        amplified: factor; what is then beyond ±1 has the full colour.
    """
    grey = difference.mean(axis=3) if difference.ndim == 4 else difference
    scaled = np.clip(mosaic(grey) * np.float32(amplified), -1, 1)[..., np.newaxis]
    end = np.where(scaled < 0, _TOO_DARK, _TOO_BRIGHT)
    return png(1 + np.abs(scaled) * (end - 1))


def png(pixels: np.ndarray) -> bytes:
    """Pixels in [0, 1] as PNG bytes: [height, width] or [height, width, 3]; NaN is transparent.

    Raises:
        MissingRuntimeError: what draws is not installed.
    """
    require_altair()
    from PIL import Image

    unseen = np.isnan(pixels.reshape(*pixels.shape[:2], -1)).any(axis=2)
    levels = np.round(np.nan_to_num(pixels).clip(0, 1) * 255).astype(np.uint8)
    colours = levels if levels.ndim == 3 else np.repeat(levels[..., np.newaxis], 3, axis=2)
    opacity = np.where(unseen, 0, 255).astype(np.uint8)[..., np.newaxis]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([colours, opacity], axis=2)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
