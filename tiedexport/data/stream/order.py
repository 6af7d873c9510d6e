"""The order of an epoch: a function of the seed and the epoch, not of how many processes read.

The blocks of the set, shuffled, make one line. The line is cut into lanes of equal length, and a
batch takes the same number of rows from each lane, give or take one. A process reads some of the
lanes, whole: each row is read by one process. Within a lane, the rows of a window are shuffled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Segment:
    """Rows of a block, counted among those that are trained on: from `first` to `stop`."""

    block: int
    first: int
    stop: int


def generator(*seeds: int) -> np.random.Generator:
    """Random numbers of their own for each tuple of seeds."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))


def segments(
    sizes: NDArray[np.int64], lanes: int, lane: int, seeds: tuple[int, int], skipped: int = 0
) -> Iterator[Segment]:
    """What a lane reads in an epoch, in order.

    Args:
        sizes: int64 [blocks], how many rows of each block are trained on.
        lanes: how many there are.
        lane: which.
        seeds: the seed and the epoch.
        skipped: how many rows of the lane are left out at its beginning.
    """
    order = generator(*seeds).permutation(len(sizes))
    ends = np.cumsum(sizes[order])
    begin, end = lane_bounds(int(ends[-1]), lanes, lane)
    begin += skipped
    for place in range(int(np.searchsorted(ends, begin, side="right")), len(order)):
        block_end = int(ends[place])
        block = int(order[place])
        block_begin = block_end - int(sizes[block])
        if block_begin >= end:
            return
        first, stop = max(begin, block_begin), min(end, block_end)
        if first < stop:
            yield Segment(block, first - block_begin, stop - block_begin)


def lane_bounds(count: int, lanes: int, lane: int) -> tuple[int, int]:
    """Where a lane begins and ends in a line of `count` rows: the first ones are longer by one."""
    short, longer = divmod(count, lanes)
    begin = lane * short + min(lane, longer)
    return begin, begin + short + (lane < longer)


def shares(first: int, stop: int, lanes: int) -> NDArray[np.int64]:
    """How many rows each lane gives to a batch of the rows `first` to `stop`: int64 [lanes].

    Row p of an epoch is the next of lane p mod lanes; within a batch the lanes stand in order.
    """
    numbers = np.arange(lanes)
    return -((numbers - stop) // lanes) + ((numbers - first) // lanes)
