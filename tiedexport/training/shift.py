"""Images that move by a few pixels: a small data set then shows more than it holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Shift:
    """Moves the images of a batch, all by the same offset; what moves in is 0.

    Args:
        sample_shape: (height, width) or (channels, height, width); the model may take the images
            in another shape.
        pixels: the largest offset in either direction of either axis.
    """

    def __init__(self, sample_shape: Sequence[int], pixels: int) -> None:
        self._image = (math.prod(sample_shape[:-2]), *sample_shape[-2:])
        self._pixels = pixels

    def offsets(self, batches: int, generator: torch.Generator) -> list[list[int]]:
        """An offset from the padded corner, (y, x), for each batch of an epoch."""
        drawn: list[list[int]] = torch.randint(
            2 * self._pixels + 1, (batches, 2), generator=generator
        ).tolist()
        return drawn

    def moved(self, batch: Tensor, offset: Sequence[int]) -> Tensor:
        """Images of any shape of their size, moved: [n, ...]."""
        y, x = offset
        _, height, width = self._image
        padded = functional.pad(batch.reshape(-1, *self._image), (self._pixels,) * 4)
        return padded[:, :, y : y + height, x : x + width].reshape(batch.shape)
