"""Data that need not fit into memory: shards that every process reads its own part of."""

from __future__ import annotations

import glob
import hashlib
import math
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tiedexport.data.images import SUFFIXES
from tiedexport.data.pixels import channels_first, unit_interval
from tiedexport.data.stream.lanes import Lane
from tiedexport.data.stream.npy import NpyShards
from tiedexport.data.stream.order import generator, segments, shares
from tiedexport.data.stream.parquet import ParquetShards
from tiedexport.data.stream.shards import read_rows, row_bytes
from tiedexport.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

    from tiedexport.data.stream.shards import Shards

KINDS = {".npy": NpyShards, ".parquet": ParquetShards}

WINDOW_BYTES = 1 << 25
"""What one process that reads all lanes holds of the data, as it is stored."""

LANES = 16
"""Among how many processes the reading can be shared, unless told."""

KEPT_ROWS, KEPT_BYTES = 10_000, 1 << 26
"""The most samples, and the most bytes of them as float32, that are kept in memory of what is
trained on; and as many are held back, unless told."""

HELD_TOGETHER = 64
"""Rows that are held back as neighbours, so that few places are read for many rows."""


class Rows(NamedTuple):
    """A process's part of a batch.

    Attributes:
        values: float32 [m, *sample_shape] in [0, 1]; m can be 0.
        first: which row of the whole batch the first of them is.
        total: how many rows the whole batch has.
    """

    values: NDArray[np.float32]
    first: int
    total: int


@dataclass(frozen=True, eq=False)
class Stream:
    """The samples to train on, in shards.

    Attributes:
        held_back: int64, the rows that are not trained on, in a random order of their places.
        sizes: int64 [blocks], how many rows of each block are trained on.
        sample: int64, in no order: rows that are trained on and kept in memory beside.
        lanes: among how many processes the reading can be shared.
    """

    shards: Shards
    held_back: NDArray[np.int64]
    sizes: NDArray[np.int64]
    sample: NDArray[np.int64]
    lanes: int

    @cached_property
    def _held(self) -> NDArray[np.int64]:
        return np.sort(self.held_back)

    @property
    def count(self) -> int:
        """How many samples there are to train on."""
        return int(self.sizes.sum())

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Any rows, as float32 [n, *sample_shape] in [0, 1].

        Raises:
            DataError: they cannot be read.
        """
        return unit_interval(channels_first(read_rows(self.shards, rows)))

    def digest(self) -> bytes:
        """Of the names and sizes of the shards and the type of their values.

        What a set of terabytes holds is not read for it.
        """
        found = hashlib.sha256(f"{self.shards.dtype.str}{self.shards.sample_shape}".encode())
        for path in self.shards.paths:
            found.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        return found.digest()

    def epoch(
        self,
        epoch: int,
        batch_size: int,
        *,
        seed: int,
        first_batch: int = 0,
        rank: int = 0,
        processes: int = 1,
        window_bytes: int = WINDOW_BYTES,
    ) -> Iterator[Rows]:
        """This process's part of each batch of an epoch; all parts together are the whole batch.

        Args:
            epoch: from 0; with `seed` it decides the order.
            batch_size: of the whole batch; the last one may be smaller.
            seed: of the training.
            first_batch: which batch is the first.
            rank: which process this is.
            processes: how many take part.
            window_bytes: what a process that reads all lanes holds; it takes part in the order.

        Raises:
            UsageError: there are more processes than lanes.
            DataError: the data cannot be read.
        """
        lanes = min(self.lanes, batch_size)
        if processes > lanes:
            raise UsageError(
                "more processes than lanes of the data",
                got=f"{processes} processes, {lanes} lanes",
                expected="at least one lane a process, and no more lanes than the batch has rows",
                hint=f"in the recipe, under [data]: lanes = {processes}",
            )
        mine = range(rank * lanes // processes, (rank + 1) * lanes // processes)
        done = min(first_batch * batch_size, self.count)
        window_rows = max(1, window_bytes // lanes // row_bytes(self.shards))
        reading = [self._lane(n, lanes, window_rows, (seed, epoch), done) for n in mine]
        for first in range(first_batch * batch_size, self.count, batch_size):
            stop = min(first + batch_size, self.count)
            share = shares(first, stop, lanes)
            ends = np.cumsum(share[mine.start : mine.stop])
            rows = np.empty((ends[-1], *self.shards.sample_shape), self.shards.dtype)
            for lane, part in zip(reading, np.split(rows, ends[:-1]), strict=True):
                lane.fill(part)
            values = unit_interval(channels_first(rows))
            yield Rows(values, int(share[: mine.start].sum()), stop - first)

    def _lane(
        self, lane: int, lanes: int, window_rows: int, seeds: tuple[int, int], done: int
    ) -> Lane:
        """A lane of an epoch of which so many rows, over all lanes, were taken before."""
        return Lane(
            partial(self._pieces, lane, lanes, seeds),
            np.empty((window_rows, *self.shards.sample_shape), self.shards.dtype),
            max(1, window_rows * (lane + 1) // lanes),
            (*seeds, lane),
            int(shares(0, done, lanes)[lane]),
        )

    def _pieces(
        self, lane: int, lanes: int, seeds: tuple[int, int], skipped: int
    ) -> Iterator[NDArray[Any]]:
        """What a lane reads, without the rows that are held back, from the row `skipped` on."""
        bounds = self.shards.bounds
        for segment in segments(self.sizes, lanes, lane, seeds, skipped):
            begin, end = np.searchsorted(self._held, bounds[segment.block : segment.block + 2])
            held = self._held[begin:end]
            # The n-th row that is trained on is behind all held ones with at most n such before.
            before = held - bounds[segment.block] - np.arange(len(held))
            inner = np.array([segment.first, segment.stop - 1])
            at, last = bounds[segment.block] + inner + np.searchsorted(before, inner, side="right")
            for piece in self.shards.read(int(at), int(last) + 1):
                there = held[np.searchsorted(held, at) : np.searchsorted(held, at + len(piece))]
                yield np.delete(piece, there - at, axis=0) if len(there) else piece
                at += len(piece)


def paths_of(source: str | Path, stream: bool) -> tuple[Path, ...]:
    """The shards of a source that is streamed; none for one that is loaded into memory.

    Streamed are a folder of .npy or Parquet files, a pattern such as `data/*.npy`, a Parquet file,
    and with `stream` a .npy file.

    Raises:
        DataError: nothing matches the pattern, the files are of several kinds, or `stream` asks for
            what cannot be streamed.
    """
    path = Path(source)
    if path.is_dir():
        entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        images = any(entry.suffix.lower() in SUFFIXES for entry in entries)
        found = [] if images else [entry for entry in entries if entry.suffix in KINDS]
    elif path.exists():
        found = [path] if path.suffix == ".parquet" or (stream and path.suffix in KINDS) else []
    elif glob.has_magic(str(source)):
        found = [Path(name) for name in glob.glob(str(source), recursive=True)]
        if not found:
            raise DataError("no file matches", where=source, hint="quote it, and look: ls")
    else:
        found = []
    kinds = {entry.suffix for entry in found}
    if len(kinds) > 1 or kinds - KINDS.keys() or (stream and not found and path.exists()):
        raise DataError(
            "this cannot be streamed",
            where=source,
            got="files of " + (", ".join(sorted(kinds)) or "another kind"),
            expected=f"files of one kind: {' or '.join(KINDS)}",
            hint="name them by a pattern: source = 'data/*.npy'",
        )
    return tuple(sorted(found))


def open_stream(
    paths: tuple[Path, ...], held_back: int | None, seed: int, column: str | None, lanes: int
) -> Stream:
    """Open shards and choose what is held back.

    Args:
        paths: files of one kind.
        held_back: how many; by default a fifth, at most 10,000.
        seed: decides which.
        column: of Parquet files.
        lanes: as in `Stream`.

    Raises:
        DataError: a shard is damaged or differs from the first, or there are too few samples.
        MissingRuntimeError: Parquet without pyarrow.
    """
    if paths[0].suffix == ".npy":
        shards: Shards = NpyShards(paths)
    else:
        shards = ParquetShards(paths, column)
    count = int(shards.bounds[-1])
    kept = max(2, min(KEPT_ROWS, KEPT_BYTES // (4 * math.prod(shards.sample_shape))))
    held_back = min(kept, max(2, count // 5)) if held_back is None else held_back
    if held_back + 1 > count:
        raise DataError(
            "too few samples",
            where=f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else paths[0],
            got=f"{count} samples",
            expected=f"at least {held_back + 1}: 1 to train on and {held_back} held back",
            hint="hold fewer back, or add samples",
        )
    chosen = _chosen(count, held_back, kept, seed)
    held = np.sort(chosen[:held_back])
    sizes = np.diff(shards.bounds) - np.diff(np.searchsorted(held, shards.bounds))
    return Stream(shards, chosen[:held_back], sizes, chosen[held_back:], lanes)


def _chosen(count: int, held_back: int, kept: int, seed: int) -> NDArray[np.int64]:
    """Rows to hold back, and behind them the sample, by a few neighbours at a time."""
    wanted = min(count, held_back + kept)
    together = max(1, min(HELD_TOGETHER, held_back // 32))
    places = -(-count // together)
    random = generator(seed)
    taken = random.choice(places, min(places, -(-wanted // together) + 1), replace=False)
    rows = (taken[:, None] * together + np.arange(together)).ravel()
    return rows[rows < count][:wanted].astype(np.int64)
