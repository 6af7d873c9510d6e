"""The orders in which the elements of a weight may be stored again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, combinations, permutations
from math import prod
from operator import mul
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PERMUTED_RANK = 6
"""Up to this rank all permutations are looked at; beyond it, only two axes that change places."""

_ALWAYS_PERMUTED_RANK = 3

_BLOCKS = (8, 16)
"""Channels that ONNX Runtime's NCHWc kernels keep together: AVX2 and AVX-512."""


@dataclass(frozen=True)
class View:
    """One order of a tensor's elements: `tensor.reshape(source).transpose(axes)`.

    Attributes:
        source: the shape to read the tensor in. Where it holds more elements than the tensor, the
            missing ones at the end are zeros: a layout pads output channels to whole blocks.
        axes: the permutation of `source`.
        form: "same", "transposed" or "permuted (…)".
        declared_axes: the permutation of the tensor's declared shape; empty for a "permuted" one.
    """

    source: tuple[int, ...]
    axes: tuple[int, ...]
    form: str
    declared_axes: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.source)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the view."""
        return tuple(self.source[axis] for axis in self.axes)

    def origins(self, positions: np.ndarray) -> np.ndarray:
        """Flat indices into the tensor of the elements at these flat indices of the view.

        Those from the tensor's size on are padding.
        """
        steps = [prod(self.source[axis + 1 :]) for axis in self.axes]
        indices = np.unravel_index(positions, self.shape)
        return sum(
            (index * step for index, step in zip(indices, steps, strict=True)),
            start=np.zeros_like(positions),
        )


def orders(shape: tuple[int, ...]) -> Iterator[View]:
    """A tensor as it is, then with its axes permuted in every way."""
    kept = [axis for axis, length in enumerate(shape) if length != 1]
    source, identity = tuple(shape[axis] for axis in kept), tuple(range(len(kept)))
    yield View(source, identity, "same", tuple(range(len(shape))))
    for axes in _permutations(identity):
        yield View(source, axes, "transposed", _declared(shape, kept, axes))


def views(shape: tuple[int, ...], copies: Iterable[tuple[int, ...]]) -> Iterator[View]:
    """Every view of a tensor of this shape that fits one of the shapes of possible copies.

    A permutation fits a shape if one of the two only splits or joins axes of the other. Up to three
    axes have so few permutations that all are looked at.
    """
    copies = set(copies)
    cuts = [_cuts(copy) for copy in copies if prod(copy) == prod(shape)]
    for view in orders(shape) if cuts else ():
        own = _cuts(view.shape)
        few = view.form == "same" or len(view.source) <= _ALWAYS_PERMUTED_RANK
        if few or any(own <= other or own >= other for other in cuts):
            yield view
    if len(shape) == 4:
        yield from _blocked(shape, copies)


def sizes(shape: tuple[int, ...]) -> set[int]:
    """The numbers of elements that views of a tensor of this shape may have."""
    if len(shape) != 4:
        return {prod(shape)}
    return {prod(shape)} | {_padded(shape[0], block) * prod(shape[1:]) for block in _BLOCKS}


def _cuts(shape: Iterable[int]) -> set[int]:
    """Where axes end, counted in elements from the front: joining axes removes cuts."""
    return set(accumulate(shape, mul))


def _permutations(identity: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if len(identity) <= _PERMUTED_RANK:
        yield from (axes for axes in permutations(identity) if axes != identity)
        return
    for a, b in combinations(identity, 2):
        axes = list(identity)
        axes[a], axes[b] = b, a
        yield tuple(axes)


def _declared(shape: tuple[int, ...], kept: list[int], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation with the axes of length 1 left where they are."""
    moved = iter(axes)
    return tuple(kept[next(moved)] if length != 1 else axis for axis, length in enumerate(shape))


def _blocked(shape: tuple[int, ...], copies: set[tuple[int, ...]]) -> Iterator[View]:
    """The layouts of ONNX Runtime's NCHWc kernels, from OIHW; it keeps the declared rank."""
    outputs, inputs, *window = shape
    for block in _BLOCKS:
        padded = _padded(outputs, block)
        if (padded, inputs, *window) not in copies:
            continue
        groups = padded // block
        source = (groups, block, inputs, *window)
        yield View(source, (0, 2, 3, 4, 1), f"permuted (OIHW{block}o)")
        if inputs % block == 0:
            source = (groups, block, inputs // block, block, *window)
            yield View(source, (0, 2, 4, 5, 3, 1), f"permuted (OIHW{block}i{block}o)")


def _padded(length: int, block: int) -> int:
    return -(-length // block) * block
