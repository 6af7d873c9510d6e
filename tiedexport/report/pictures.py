"""The two PNGs that a training leaves: its curves, and rows of images with their labels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from tiedexport import atomic
from tiedexport.report import charts, images, model_charts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_GRID_WIDTH, _LABEL_HEIGHT = 1120, 34


def training_curves(
    path: Path, train_loss: Sequence[float], validation_rmse: Sequence[float]
) -> None:
    """Write training loss and validation RMSE by epoch as a PNG.

    Raises:
        MissingRuntimeError: what draws is not installed.
    """
    sides = (
        model_charts.training_chart(train_loss, "training loss"),
        model_charts.training_chart(validation_rmse, "validation RMSE", mark_least=True),
    )
    both = {"hconcat": [{**side, "width": 300} for side in sides]}
    atomic.write(path, charts.png(both))


def reconstruction_grid(path: Path, rows: Mapping[str, np.ndarray]) -> None:
    """Write labelled rows of images as a PNG.

    Args:
        path: the file to write.
        rows: label → [n, height, width] or [n, height, width, 3] in [0, 1].

    Raises:
        MissingRuntimeError: what draws is not installed.
    """
    charts.require_altair()
    from PIL import Image, ImageDraw

    strips = {label: Image.open(io.BytesIO(images.strip(shown))) for label, shown in rows.items()}
    heights = [round(_GRID_WIDTH * strip.height / strip.width) for strip in strips.values()]
    size = (_GRID_WIDTH, sum(heights) + _LABEL_HEIGHT * len(strips))
    grid = Image.new("RGB", size, charts.PAPER)
    pen, top = ImageDraw.Draw(grid), 0
    for (label, strip), height in zip(strips.items(), heights, strict=True):
        pen.text((2, top + 6), label, fill=charts.INK, font_size=20)
        top += _LABEL_HEIGHT
        large = strip.resize((_GRID_WIDTH, height), Image.Resampling.NEAREST)
        grid.paste(large, (0, top), large)
        top += height
    buffer = io.BytesIO()
    grid.save(buffer, "PNG")
    atomic.write(path, buffer.getvalue())
