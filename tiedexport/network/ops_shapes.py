"""Layers of a parsed network that move numbers and compute none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]


def shuffle(layer: Any, module: Any, operands: Sequence[Array]) -> Array:
    """Transpose, reshape, transpose; the shape may come from a second input."""
    x = operands[0]
    x = x.transpose(tuple(layer.first_transpose)[: x.ndim])
    wanted = operands[1].tolist() if len(operands) > 1 else layer.reshape_dims
    if wanted is not None:
        dims = [int(n) for n in wanted]
        if layer.zero_is_placeholder:
            dims = [x.shape[axis] if n == 0 else n for axis, n in enumerate(dims)]
        x = x.reshape(dims)
    return x.transpose(tuple(layer.second_transpose)[: x.ndim])


def shape(layer: Any, module: Any, operands: Sequence[Array]) -> Array:
    """The extents of a tensor as int64."""
    return np.array(operands[0].shape, np.int64)


def gather(layer: Any, module: Any, operands: Sequence[Array]) -> Array:
    """Slices of the first operand, by the indices of the second."""
    data, indices = operands
    if layer.mode.name != "DEFAULT" or layer.num_elementwise_dims != 0:
        raise ValueError(
            f"gathering by {layer.mode.name} with {layer.num_elementwise_dims} element-wise "
            f"axes is not evaluated"
        )
    return np.take(data, indices, axis=layer.axis)


def slice_(layer: Any, module: Any, operands: Sequence[Array | None]) -> Array:
    """Every `stride`-th element of an axis; each of the three may come from an input.

    Out of bounds there is nothing, or in the mode FILL a value, by default 0.
    """
    x, start, size, stride, fill, axes = [*operands, *[None] * 6][:6]
    assert x is not None  # the operand that is sliced is not optional
    if layer.mode.name not in ("STRICT_BOUNDS", "FILL") or axes is not None:
        raise ValueError(f"slicing by {layer.mode.name}, or axes from an input, is not evaluated")
    given = zip(("start", "shape", "stride"), (start, size, stride), strict=True)
    # Of what an input gives, nothing must be read from the layer: TensorRT logs an error.
    settings = [getattr(layer, name) if v is None else v.tolist() for name, v in given]
    for axis, first, count, step in zip(layer.axes or range(x.ndim), *settings, strict=True):
        index, extent = first + step * np.arange(count), x.shape[axis]
        outside = (index < 0) | (index >= extent)
        if outside.any() and layer.mode.name != "FILL":
            raise ValueError(f"axis {axis} of {extent} does not have all of {index.tolist()}")
        x = np.take(x, np.where(outside, 0, index), axis=axis)
        np.moveaxis(x, axis, 0)[outside] = 0 if fill is None else fill
    return x


def concatenation(layer: Any, module: Any, operands: Sequence[Array]) -> Array:
    """The operands behind each other along an axis."""
    return np.concatenate(operands, axis=layer.axis)


def squeeze(layer: Any, module: Any, operands: Sequence[Array]) -> Array:
    """Without the axes that the second operand lists."""
    x, axes = operands
    return np.squeeze(x, axis=tuple(axes.reshape(-1).tolist()))


def unsqueeze(layer: Any, module: Any, operands: Sequence[Array]) -> Array:
    """With new axes of extent 1 where the second operand says."""
    x, axes = operands
    return np.expand_dims(x, axis=tuple(axes.reshape(-1).tolist()))
