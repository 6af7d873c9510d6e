"""Comparison of two tensors in full, in pieces that fit into a few megabytes."""

from __future__ import annotations

from functools import partial
from itertools import product
from math import prod
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tiedexport.copies.types import Route, bits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.copies.views import View
    from tiedexport.stored import StoredTensor

_READ = 1 << 22
"""Elements of a piece that is read: 16 MiB of fp32 on either side."""

_CACHED = 1 << 16
"""Elements of a piece that is compared: both sides stay in the processor's cache."""

_GAP = 16
"""Elements between rows in memory: at a power of two, a column would fight for one set of cache."""

Box = tuple[slice, ...]
T = TypeVar("T")


def largest_difference(
    original: StoredTensor, copy: StoredTensor, view: View, route: Route, atol: float
) -> float | None:
    """The largest difference between a view of one tensor, cast, and another; None above `atol`.

    With `atol` 0 all bits agree, but for NaNs that a cast made.
    """
    largest = 0.0
    if view.form != "same":
        original.content.read_ahead(original.length)
        copy.content.read_ahead(copy.length)
    for box in boxes(view.source, view.axes, _READ):
        ours = _read(original, view.source, box)
        theirs = _read(copy, _moved(view.source, view.axes), _moved(box, view.axes))
        if atol == 0.0:
            ours = bits(ours, route, any_nan=bool(route))
            theirs = bits(theirs, any_nan=bool(route))
        for part in boxes(ours.shape, view.axes, _CACHED):
            a, b = ours[part].transpose(view.axes), theirs[_moved(part, view.axes)]
            if atol == 0.0:
                if not np.array_equal(a, b):
                    return None
            else:
                largest = max(largest, _gap(a, b))
                if largest > atol:
                    return None
    return largest


def boxes(shape: tuple[int, ...], axes: tuple[int, ...], budget: int) -> Iterator[Box]:
    """Cut a tensor into boxes of at most `budget` elements.

    A box is grown so that both the tensor and its transpose hold it in long contiguous runs: the
    one whose runs are shorter gets its next axis doubled.
    """
    lengths = [1] * len(shape)
    orders = tuple(range(len(shape))), axes
    while True:
        runs = [_run(shape, lengths, order) for order in orders]
        grown = [(run, axis) for run, axis in runs if axis is not None]
        if not grown or 2 * prod(lengths) > budget:
            break
        axis = min(grown)[1]
        lengths[axis] = min(2 * lengths[axis], shape[axis])
    cuts = [range(0, length, step) for length, step in zip(shape, lengths, strict=True)]
    for starts in product(*cuts):
        yield tuple(
            slice(start, min(start + step, length))
            for start, step, length in zip(starts, lengths, shape, strict=True)
        )


def _run(
    shape: tuple[int, ...], lengths: list[int], order: tuple[int, ...]
) -> tuple[int, int | None]:
    """Elements that lie together in a box, and the axis along which more would; None if all do."""
    run = 1
    for axis in reversed(order):
        run *= lengths[axis]
        if lengths[axis] < shape[axis]:
            return run, axis
    return run, None


def _moved(items: tuple[T, ...], axes: tuple[int, ...]) -> tuple[T, ...]:
    return tuple(items[axis] for axis in axes)


def _read(tensor: StoredTensor, shape: tuple[int, ...], box: Box) -> np.ndarray:
    """The elements of a box of a tensor in a shape; zeros behind the tensor's end."""
    lengths = [part.stop - part.start for part in box]
    # Trailing axes that the box holds whole lie together, as does a part of the one before them.
    last = len(shape) - 1
    while last > 0 and lengths[last] == shape[last]:
        last -= 1
    run, steps = prod(lengths[last:]), [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    first = sum(part.start * step for part, step in zip(box, steps, strict=True))
    inside = sum((part.stop - 1) * step for part, step in zip(box, steps, strict=True))
    read = tensor.content.read if inside < tensor.length else partial(_padded_read, tensor)
    if run == prod(lengths):
        return read(first, run).reshape(lengths)
    out = np.empty((prod(lengths[:last]), run + _GAP), tensor.dtype)[:, :run]
    rows = [range(0, length * step, step) for length, step in zip(lengths, steps, strict=True)]
    for row, offsets in enumerate(product(*rows[:last])):
        out[row] = read(first + sum(offsets), run)
    return out.reshape(lengths)


def _padded_read(tensor: StoredTensor, start: int, count: int) -> np.ndarray:
    out = np.zeros(count, tensor.dtype)
    there = min(count, tensor.length - start)
    if there > 0:
        out[:there] = tensor.content.read(start, there)
    return out


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    """Largest absolute difference; infinite where only one is NaN."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    agree = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.where(agree, 0.0, np.abs(a - b))
    return float(np.where(np.isnan(gaps), np.inf, gaps).max())
