"""What every kind of shards has in common: one line of rows, in blocks that are read at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

PIECE_BYTES = 1 << 17
"""About how much is read at a time: enough for a disk to be fast, little beside a window."""

MOST_BLOCKS = 1 << 20
"""The order of an epoch has an entry a block: larger sets get larger blocks."""


class Shards(Protocol):
    """Files of samples of one shape and type, as one line of rows.

    Attributes:
        paths: the files, in the order of their rows.
        dtype, sample_shape: of a sample as it is stored.
        bounds: int64 [blocks + 1], block i holds the rows from bounds[i] to bounds[i + 1]; it lies
            in one file.
    """

    paths: tuple[Path, ...]
    dtype: np.dtype[Any]
    sample_shape: tuple[int, ...]
    bounds: NDArray[np.int64]

    def read(self, first: int, stop: int) -> Iterator[NDArray[Any]]:
        """The rows from `first` to `stop`, of one block, in pieces [m, *sample_shape].

        Raises:
            DataError: the rows cannot be read, or a value is no sample's.
        """
        ...


def read_rows(shards: Shards, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Any rows, in their order: [len(rows), *sample_shape]; each block is gone through once.

    Raises:
        DataError: as `Shards.read`.
    """
    found = np.empty((len(rows), *shards.sample_shape), shards.dtype)
    order = np.argsort(rows, kind="stable")
    blocks = np.searchsorted(shards.bounds, rows[order], side="right")
    for places in np.split(order, np.flatnonzero(np.diff(blocks)) + 1):
        if not len(places):
            continue
        wanted = rows[places]
        at = int(wanted[0])
        for piece in shards.read(at, int(wanted[-1]) + 1):
            begin, end = np.searchsorted(wanted, (at, at + len(piece)))
            found[places[begin:end]] = piece[wanted[begin:end] - at]
            at += len(piece)
    return found


def row_bytes(shards: Shards) -> int:
    """The size of a sample as it is stored."""
    return math.prod(shards.sample_shape) * shards.dtype.itemsize


def rows_at_a_time(shards: Shards) -> int:
    """How many rows make a piece."""
    return max(1, PIECE_BYTES // row_bytes(shards))
