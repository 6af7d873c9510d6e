"""Arrays that came from files, as a stage takes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.data.pixels import channels_first, unit_interval
from tiedexport.errors import ArrayError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiedexport.spec import TensorSpec


def stage_input(
    array: NDArray[Any], spec: TensorSpec, where: object, *, images: bool
) -> NDArray[Any]:
    """Samples of any floating type, or images, in the type and shape of a stage's input.

    Args:
        array: [n, ...] in their original shape (28×28 for a model of 784 inputs).
        spec: of the stage's input.
        where: what the array came from, for an error.
        images: whether uint8 is taken, and divided by 255, as it is for training; and bool.

    Returns:
        [n, *spec.element_shape] in the type of `spec`: the array itself where that fits.

    Raises:
        ArrayError: the shape does not fit the stage.
        DataError: the values are no floating-point numbers.
    """
    if array.shape[1:] != spec.element_shape:  # a code may look like an image
        array = channels_first(array)
    if array.ndim < 2 or math.prod(array.shape[1:]) != math.prod(spec.element_shape):
        raise ArrayError(
            "the array does not fit the stage",
            where=where,
            got=f"{array.dtype}{list(array.shape)}",
            expected=str(spec),
        )
    if images and array.dtype in (np.uint8, np.bool_):
        array = unit_interval(array)
    elif not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            "not an array of floating-point numbers",
            where=where,
            got=array.dtype,
            expected="float32, scaled as the training data was"
            + (", or images in uint8" if images else ""),
        )
    return array.reshape(len(array), *spec.element_shape).astype(spec.dtype.dtype, copy=False)
