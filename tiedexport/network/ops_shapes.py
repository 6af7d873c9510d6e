"""Layers of a parsed network that move numbers and compute none."""

from __future__ import annotations

from itertools import zip_longest
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
    """Every `stride`-th element of an axis; each of the three may come from an input."""
    x, *given = operands
    assert x is not None  # the operand that is sliced is not optional
    if layer.mode.name != "STRICT_BOUNDS":
        raise ValueError(f"slicing beyond bounds by {layer.mode.name} is not evaluated")
    if len(given) > 3:
        raise ValueError("slicing with a fill value or axes from an input is not evaluated")
    settings = [
        getattr(layer, name) if values is None else values.tolist()  # unset, reading one is logged
        for name, values in zip_longest(("start", "shape", "stride"), given)
    ]
    axes = range(x.ndim) if layer.axes is None else [axis % x.ndim for axis in layer.axes]
    for axis, start, size, stride in zip(axes, *settings, strict=True):
        x = np.take(x, start + stride * np.arange(size), axis=axis)
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
