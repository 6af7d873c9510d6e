"""Turns of several threads that begin together, on any clock."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEAST_TURNS = 5


def turns_s(
    parts: Sequence[Callable[[], object]],
    duration_s: float,
    clock: Callable[[], int] = perf_counter_ns,
) -> list[float]:
    """Seconds of each turn, from when the first thread begins until the last one ends.

    Args:
        parts: what each thread does in a turn; it must not hold the interpreter's lock for long.
        duration_s: there are turns for at least so long, after one that does not count.
        clock: nanoseconds, the same for all threads.
    """
    spans: list[list[tuple[int, int]]] = [[] for _ in parts]
    spent_s: list[float] = []
    going = True

    def decide() -> None:
        """Between two turns, in one thread while the others wait."""
        nonlocal going
        if spans[0]:
            spent_s.append(span_s([mine[-1] for mine in spans]))
        going = len(spent_s) <= LEAST_TURNS or sum(spent_s) < duration_s

    barrier = threading.Barrier(len(parts), decide)

    def run(part: Callable[[], object], mine: list[tuple[int, int]]) -> None:
        try:
            barrier.wait()
            while going:
                began = clock()
                part()
                mine.append((began, clock()))
                barrier.wait()
        except BaseException:
            barrier.abort()  # or the others would wait for ever
            raise

    with ThreadPoolExecutor(len(parts)) as others:
        begun = [others.submit(run, *each) for each in zip(parts[1:], spans[1:], strict=True)]
        with suppress(threading.BrokenBarrierError):  # by one of them, whose error comes below
            run(parts[0], spans[0])
    for other in begun:
        with suppress(threading.BrokenBarrierError):
            other.result()
    return spent_s[1:]


def span_s(spans: Sequence[tuple[int, int]]) -> float:
    """Seconds from the first beginning to the last end, of (begin, end) in nanoseconds."""
    return (max(end for _, end in spans) - min(begin for begin, _ in spans)) / 1e9
