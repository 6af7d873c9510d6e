"""What a process holds of a stream: a window of rows for each lane that it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.data.stream.order import generator
from tiedexport.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


class Lane:
    """Rows of one lane, those of a window in random order.

    Args:
        pieces: how many rows are left out → arrays [m, *sample_shape] of the lane's other rows, in
            the order in which they are read.
        window: [w, *sample_shape], any values: where the rows of a window are kept.
        first_size: of the first window; where lanes differ, they do not all read at once.
        seeds: decide the order within each window.
        skipped: how many rows are not taken; whole windows of them are not read either.
    """

    def __init__(
        self,
        pieces: Callable[[int], Iterator[NDArray[Any]]],
        window: NDArray[Any],
        first_size: int,
        seeds: tuple[int, ...],
        skipped: int = 0,
    ) -> None:
        whole = 0 if skipped < first_size else 1 + (skipped - first_size) // len(window)
        rows = first_size + (whole - 1) * len(window) if whole else 0
        self._pieces = pieces(rows)
        self._window = window
        self._next_size = len(window) if whole else first_size
        self._seeds = seeds
        self._windows = whole
        self._left_over = window[:0]
        self._order = np.empty(0, np.int64)
        if skipped > rows:
            self._refill()
            self._order = self._order[skipped - rows :]

    def fill(self, rows: NDArray[Any]) -> None:
        """Put the next rows into an array [n, *sample_shape].

        Raises:
            DataError: they cannot be read.
        """
        while len(rows):
            if not len(self._order):
                self._refill()
            part = self._order[: len(rows)]
            # With mode="clip" NumPy writes into `out` itself, not into a copy before.
            self._window.take(part, axis=0, out=rows[: len(part)], mode="clip")
            self._order = self._order[len(part) :]
            rows = rows[len(part) :]

    def _refill(self) -> None:
        filled = 0
        while filled < self._next_size:
            if not len(self._left_over):
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._left_over = piece
            part = self._left_over[: self._next_size - filled]
            self._window[filled : filled + len(part)] = part
            self._left_over = self._left_over[len(part) :]
            filled += len(part)
        if not filled:
            raise DataError(
                "the shards hold fewer rows than their headers say",
                got=f"the end of a lane in its window {self._windows}",
                hint="write the shards again",
            )
        self._next_size = len(self._window)
        self._order = generator(*self._seeds, self._windows).permutation(filled)
        self._windows += 1
