"""Equality of weights by content: the same, transposed, or cast to another type."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tiedexport.stored import StoredTensor

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


@dataclass(frozen=True)
class Copy:
    """A stored tensor that repeats another.

    `tensor` is `original.transpose(axes).reshape(tensor.shape).astype(tensor.dtype)`, unless `form`
    begins with "permuted": then a runtime's blocked layout separates them and `axes` is empty.

    Attributes:
        form: "same", "transposed", "cast", "cast and transposed", "permuted (…)".
        difference: largest |original - copy| over all elements; 0 unless `atol` admitted more.
    """

    tensor: StoredTensor
    form: str
    axes: tuple[int, ...]
    difference: float = 0.0


@dataclass(frozen=True)
class Group:
    """A stored weight and every other tensor that repeats it, in the order given.

    The original is the first of the widest type; tensors of one place stand here as copies of form
    "same", and count once by `place`.
    """

    original: StoredTensor
    copies: tuple[Copy, ...]


def find(tensors: Iterable[StoredTensor], *, atol: float = 0.0) -> list[Group]:
    """Every weight that is stored or named more than once, by content.

    Samples of each tensor decide who could be a copy; only candidates are compared in full, piece
    by piece. Tensors that are equal by chance are left out: fewer than 16 elements, constants,
    identities, masks, arithmetic progressions.

    Args:
        tensors: of any number of files.
        atol: also take tensors of one type whose elements differ by at most this.
    """
    raise NotImplementedError
