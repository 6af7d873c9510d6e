"""Shards that are .npy files: exactly the rows that are wanted are read."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.data.files import damage_reported
from tiedexport.data.pixels import check_samples
from tiedexport.data.stream.shards import MOST_BLOCKS, row_bytes, rows_at_a_time
from tiedexport.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SMALL_SET_BLOCKS = 4096
"""A small set is parted into about so many blocks, so that its order is no coarser than that."""


class NpyShards:
    """`Shards` of .npy files.

    They are read, not mapped: what a process has read of a mapped file counts as its memory.

    Args:
        paths: the files.

    Raises:
        DataError: a file is damaged or cut short, or differs from the first in type or shape.
    """

    def __init__(self, paths: tuple[Path, ...]) -> None:
        headers = [_header(path) for path in paths]
        self.paths = paths
        self.dtype, self.sample_shape = headers[0][0], headers[0][1][1:]
        for path, (dtype, shape, _) in zip(paths, headers, strict=True):
            if (dtype, shape[1:]) != (self.dtype, self.sample_shape):
                raise DataError(
                    "the shards differ",
                    where=path,
                    got=f"{dtype} of {list(shape[1:])} a sample",
                    expected=f"{self.dtype} of {list(self.sample_shape)}, as in {paths[0]}",
                    hint="save all shards alike, or move this one elsewhere",
                )
        self._offsets = [offset for *_, offset in headers]
        self._starts = np.cumsum([0, *(shape[0] for _, shape, _ in headers)])
        self.bounds = _bounds(self._starts, rows_at_a_time(self))

    def read(self, first: int, stop: int) -> Iterator[NDArray[Any]]:
        """As `Shards.read`."""
        shard = int(np.searchsorted(self._starts, first, side="right")) - 1
        path, start = self.paths[shard], int(self._starts[shard])
        step = rows_at_a_time(self)
        with damage_reported(path), path.open("rb", buffering=0) as file:
            for at in range(first, stop, step):
                rows = np.empty((min(step, stop - at), *self.sample_shape), self.dtype)
                offset = self._offsets[shard] + (at - start) * row_bytes(self)
                _read_whole(file.fileno(), rows, offset, path)
                check_samples(rows, f"{path}, rows {at - start} to {at - start + len(rows) - 1}")
                yield rows


def _header(path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Type, shape and where the values begin; the file is as long as they say."""
    with damage_reported(path):
        mapped = np.lib.format.open_memmap(path, mode="r")
    if not mapped.flags.c_contiguous:
        raise DataError(
            "the samples of this shard are not stored one after the other",
            where=path,
            got="an array in Fortran's order",
            hint="np.save('shard.npy', np.ascontiguousarray(array))",
        )
    check_samples(mapped[:1], path)
    return mapped.dtype, mapped.shape, mapped.offset


def _bounds(starts: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    count = int(starts[-1])
    rows = max(1, min(rows, count // SMALL_SET_BLOCKS), -(-count // MOST_BLOCKS))
    inner = [np.arange(a, b, rows) for a, b in pairwise(starts)]
    return np.concatenate([*inner, starts[-1:]])


def _read_whole(file: int, rows: NDArray[Any], offset: int, path: Path) -> None:
    view = rows.data.cast("B")
    while len(view):
        size_bytes = os.preadv(file, [view], offset)
        if not size_bytes:
            raise DataError(
                "the shard became shorter while it was read",
                where=path,
                got=f"no byte {offset}",
                hint="leave the data alone while a training runs",
            )
        view, offset = view[size_bytes:], offset + size_bytes
