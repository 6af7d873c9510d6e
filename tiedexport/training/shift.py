"""Images that move by a few pixels: a small data set then shows more than it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class ShiftedImages:
    """Batches whose images are all moved by the same offset; what moves in is 0.

    Args:
        samples: [n, *input_shape], images in whatever shape the model takes them.
        sample_shape: (height, width) or (channels, height, width).
        pixels: the largest offset in either direction of either axis.
    """

    def __init__(self, samples: Tensor, sample_shape: Sequence[int], pixels: int) -> None:
        self._input_shape = samples.shape[1:]
        self._height, self._width = sample_shape[-2:]
        self._offsets = 2 * pixels + 1
        images = samples.reshape(len(samples), -1, self._height, self._width)
        self._padded = functional.pad(images, (pixels,) * 4)

    def offsets(self, batches: int, generator: torch.Generator) -> list[list[int]]:
        """An offset from the padded corner, (y, x), for each batch of an epoch."""
        drawn: list[list[int]] = torch.randint(
            self._offsets, (batches, 2), generator=generator
        ).tolist()
        return drawn

    def batch(self, indices: Tensor, offset: Sequence[int]) -> Tensor:
        """The samples at `indices`, moved: [len(indices), *input_shape]."""
        y, x = offset
        window = self._padded[:, :, y : y + self._height, x : x + self._width]
        return window[indices].reshape(-1, *self._input_shape)
