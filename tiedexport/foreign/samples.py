"""Inputs for the golden pairs of a model that has none of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from tiedexport.data.files import read
from tiedexport.data.pixels import channels_first, unit_interval
from tiedexport.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

COUNT = 32
RANDOM = "samples: random in [0, 1); --samples FILE.npy takes yours"
"""The line of samples that are no data."""


def samples_for(input_shape: tuple[int, ...], path: Path | None) -> tuple[Tensor, str]:
    """`COUNT` inputs [n, *input_shape] float32, and a line that says what they are.

    Args:
        input_shape: of one item.
        path: any file of data; uint8 is divided by 255. By default numbers are drawn from [0, 1),
            the same every time.

    Raises:
        DataError: the file cannot be read, or does not hold such items, or not finite ones.
    """
    if path is None:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.rand(COUNT, *input_shape, generator=generator)
        return drawn, RANDOM
    array = read(path)[0]
    if array.ndim > 1 and array.shape[1:] != input_shape:
        array = channels_first(array)
    is_image, is_float = array.dtype in (np.uint8, np.bool_), array.dtype.kind == "f"
    fits = array.ndim > 1 and math.prod(array.shape[1:]) == math.prod(input_shape)
    if not (fits and len(array) and (is_image or is_float)):
        raise DataError(
            "these are no inputs of the model",
            where=path,
            got=f"{array.dtype} of shape {list(array.shape)}",
            expected=f"at least one of shape {list(input_shape)}, uint8 or floats",
        )
    chosen = unit_interval(array[:COUNT])
    if not np.isfinite(chosen).all():
        raise DataError("the samples hold NaN or infinity", where=path)
    return torch.from_numpy(chosen.reshape(-1, *input_shape)), f"samples: {path}"
