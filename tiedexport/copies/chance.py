"""Which tensors hold enough information that two equal ones are a copy and not a coincidence.

Two tensors that have nothing to do with each other agree with a probability of 2^-bits, where bits
is the least that it takes to tell the content to someone who sees each element's neighbours first.
Weights, also random ±1 or ternary ones, take about a bit an element or more; constants,
identities, triangular, banded and block masks and one-hot rows take nearly none, because an element
follows from those to its left and above; arithmetic progressions along any axis, because its
difference to them does; geometric ones (inverse frequencies of rotary embeddings, slopes of ALiBi),
because its ratio to them does. Other tables that a formula gives (sines and cosines of positions,
windows of Hann or Gauss, distances, squares) do count: two of them are two copies in a file, though
nobody tied them.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.copies.types import SIGNIFICANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.stored import StoredTensor

LEAST_ELEMENTS = 16
"""Fewer are equal too easily: the same small kernel, the same scales."""

LEAST_BITS = 32.0
"""Odds of one in four billion for a pair."""

_WINDOW = 1 << 12
_WINDOWS = 8


def informative(tensor: StoredTensor) -> bool:
    """Whether a tensor that equals this one is a copy of it.

    Looks at up to eight windows of the content: a weight may begin with rows of zeros. Integers of
    more than two bytes are indices and shapes, which nobody ties: a formula made both.
    """
    wide_integer = tensor.dtype.kind in "iu" and tensor.dtype.itemsize > 2
    if tensor.length < LEAST_ELEMENTS or tensor.dtype == np.bool_ or wide_integer:
        return False
    return any(information(window) >= LEAST_BITS for window in _windows(tensor))


def _windows(tensor: StoredTensor) -> Iterator[np.ndarray]:
    """Pieces of the content as a matrix, its last axis that of the tensor: ends, then inside."""
    columns = next((n for n in reversed(tensor.elements) if n > 1), 1)
    rows = tensor.length // columns
    height = min(rows, max(32, _WINDOW // columns))
    width = min(columns, max(1, _WINDOW // height))
    ends = np.array([[0, 0], [1, 1], [0.5, 0.5]])
    corners = np.concatenate([ends, np.random.default_rng(0).random((_WINDOWS - 3, 2))])
    scaled = np.rint(corners * [rows - height, columns - width]).astype(np.int64)
    for top, left in np.unique(scaled, axis=0):
        lines = range(int(top), int(top) + height)
        if width == columns:
            yield tensor.content.read(int(top) * columns, height * width).reshape(height, width)
        else:
            yield np.stack([tensor.content.read(i * columns + int(left), width) for i in lines])


def information(window: np.ndarray) -> float:
    """Bits that it takes to tell a matrix, element by element, to one who saw its neighbours."""
    if window.dtype.kind == "c":
        window = window.view(window.real.dtype)
    window = _without_repeats(_without_repeats(window).T)
    if _is_progression(window) or _is_geometric(window):
        return 0.0
    names, counts = np.unique(_bits(window), return_counts=True)
    if len(names) == 2 and counts.min() <= min(max(window.shape), window.size // 8):
        return 0.0  # at most a one-hot row or column each
    common = names[np.argsort(counts)[::-1][:3]]
    kinds = np.full(window.shape, len(common))
    for kind, name in enumerate(common):
        kinds[_bits(window) == name] = kind
    rare = int((kinds == len(common)).sum())
    return _surprise(kinds) + rare * log2(max(1, len(names) - len(common)))


def _without_repeats(window: np.ndarray) -> np.ndarray:
    """Blocks of equal rows as one row each; a few rows that are equal are left: by chance."""
    changes = (_bits(window)[1:] != _bits(window)[:-1]).any(axis=1)
    if window.shape[1] == 1 or 2 * changes.sum() >= len(changes):
        return window
    distinct: np.ndarray = window[np.concatenate([[True], changes])]
    return distinct


def _bits(window: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(window).view(f"u{window.dtype.itemsize}")


def _is_progression(window: np.ndarray) -> bool:
    """Whether elements grow evenly along both axes, up to rounding."""
    values = window.astype(np.float64)
    return _is_even(values, 4 * _epsilon(window) * np.abs(values).max())


def _is_geometric(window: np.ndarray) -> bool:
    """Whether elements have one ratio along each axis, up to the rounding of a power.

    They also only grow, or only shrink: among a few weights rounded to a few bits, chance does not
    bring that about.
    """
    magnitudes = np.abs(window.astype(np.float64))
    one_sign = len(np.unique(np.sign(window.astype(np.float64)))) == 1
    if not one_sign or not np.isfinite(magnitudes).all() or not magnitudes.all():
        return False
    for axis in (0, 1):
        growth = np.diff(magnitudes, axis=axis)
        if growth.size and growth.min() < 0 < growth.max():
            return False
    logs = np.log(magnitudes)
    # An exponent of n bits that is rounded turns a power by as much as the exponent is large.
    epsilon = max(_epsilon(window), np.finfo(np.float64).eps)
    return _is_even(logs, 8 * epsilon * (1 + np.abs(logs).max()))


def _is_even(values: np.ndarray, allowed: float) -> bool:
    """Whether second differences along and across both axes are at most so large."""
    if not np.isfinite(values).all():
        return False
    edges = [np.diff(values[0], 2), np.diff(values[:, 0], 2)]
    inside = np.diff(np.diff(values, axis=0), axis=1)
    return all(np.abs(part).max(initial=0.0) <= allowed for part in (*edges, inside))


def _epsilon(window: np.ndarray) -> float:
    """Spacing of the stored type at 1; 0 for integers."""
    stored_bits = SIGNIFICANDS.get(window.dtype)
    return 0.0 if stored_bits is None else 2.0**-stored_bits


def _surprise(kinds: np.ndarray) -> float:
    """Entropy of each element given those left, above and above left, summed, in bits.

    What was seen once in its context says nothing about chance: it costs a full element.
    """
    symbols = int(kinds.max()) + 1
    padded = np.pad(kinds, ((1, 0), (1, 0)), constant_values=symbols)
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    base = symbols + 1
    contexts = ((left * base + above) * base + corner).ravel()
    table = np.zeros((base**3, symbols))
    np.add.at(table, (contexts, kinds.ravel()), 1)
    totals = table.sum(axis=1)
    once = float((totals == 1).sum())
    table, totals = table[totals > 1], totals[totals > 1]
    shares = table / totals[:, None]
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return float(-(table * logs).sum()) + once * log2(symbols)
