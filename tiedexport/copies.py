"""Equality of weights by content: the same, transposed, or cast to another type."""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import numpy as np

Relation = Literal["same", "transposed", "cast", "cast and transposed"]

_BLOCK_ROWS = 256


def relation(original: np.ndarray, other: np.ndarray) -> Relation | None:
    """How `other` is a copy of `original`, or None.

    A cast copy is equal once both are rounded to the type of fewer bits. Constant tensors are
    never copies: they are equal by chance.
    """
    if original.size != other.size or original.size < 2 or original.ndim != other.ndim:
        return None
    cast = original.dtype != other.dtype
    for axes in permutations(range(original.ndim)):
        view = original.transpose(axes)
        if view.shape == other.shape and _equal(view, other):
            if bool((other.ravel()[0] == other).all()):
                return None
            moved = axes != tuple(range(original.ndim))
            return _name(cast, moved)
    return None


def _name(cast: bool, moved: bool) -> Relation:
    if cast:
        return "cast and transposed" if moved else "cast"
    return "transposed" if moved else "same"


def _equal(view: np.ndarray, other: np.ndarray) -> bool:
    """Compare block by block: the first block settles nearly every question."""
    dtype = min(view.dtype, other.dtype, key=lambda kind: kind.itemsize)
    blocks = [slice(i, i + _BLOCK_ROWS) for i in range(0, len(view), _BLOCK_ROWS)]
    with np.errstate(over="ignore"):  # what leaves the range becomes infinite on both sides
        return all(
            np.array_equal(
                view[block].astype(dtype, copy=False), other[block].astype(dtype, copy=False)
            )
            for block in blocks
        )
