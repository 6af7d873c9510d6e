"""Items that a thread makes before they are wanted."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

T = TypeVar("T")


def read_ahead(items: Iterator[T], count: int) -> Generator[T]:
    """The same items, of which the next `count` are made while one is used; none of them is None.

    Whoever stops early closes it.
    """
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        waiting = deque(thread.submit(next, items, None) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, items, None))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)
