"""Reading, computing and writing at once, each in a thread of its own, a few blocks apart."""

from __future__ import annotations

import errno
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tiedexport import atomic
from tiedexport.data.read_ahead import read_ahead
from tiedexport.encode.job import REJECTED, Done, part_name
from tiedexport.encode.work import stage_of
from tiedexport.errors import BadInputError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from tiedexport.encode.rows import Rows
    from tiedexport.encode.sinks import Writer
    from tiedexport.encode.work import Work

AHEAD = 2
"""Blocks that are read before they are wanted, and that wait to be written."""


def run_parts(
    work: Work,
    numbers: Iterable[int],
    done: Callable[[Done], None],
    advance: Callable[[int], None],
) -> None:
    """Compute parts in order.

    Args:
        work: what computes them.
        numbers: of the parts.
        done: called when a part is whole and synced.
        advance: called with a number of rows that were written.

    Raises:
        BadInputError: the output cannot be written: the disk is full, for one.
        DataError: an input cannot be read, or a row cannot be computed, where that is to stop.
        RuntimeFailedError: the runtime failed, in its own words.
    """
    parts = _Parts(work, done, advance)
    waiting: deque[Future[None]] = deque()
    # Left from within: what was computed is written first, then a part that is not whole goes.
    with (
        parts,
        ThreadPoolExecutor(1) as writing,
        closing(read_ahead(_read(work, numbers), AHEAD)) as reading,
    ):
        for number, rows in reading:
            if rows is None:
                waiting.append(writing.submit(parts.end, number))
            else:
                _refuse_rejected(work, number, rows)
                waiting.append(writing.submit(parts.write, number, rows, _compute(work, rows.x)))
            while len(waiting) > AHEAD:
                waiting.popleft().result()
        for future in waiting:
            future.result()


def _read(work: Work, numbers: Iterable[int]) -> Iterator[tuple[int, Rows | None]]:
    """The rows of each part, and behind its last ones None."""
    for number in numbers:
        part = work.job.parts[number]
        source = work.sources[part.input]
        for rows in source.read(part.start, part.stop, work.job.block):
            yield number, rows
        yield number, None


def _compute(work: Work, x: NDArray[Any]) -> NDArray[Any]:
    """Batches of the job's size from the first row on, whatever is rejected among them."""
    stage = stage_of(work.session, work.job.settings.stage)
    spec, batch = stage.outputs[0], work.job.batch
    out = np.empty((len(x), *spec.element_shape), spec.dtype.dtype)
    for at in range(0, len(x), batch):
        work.session.run(stage.name, x[at : at + batch], out[at : at + batch])
    return out


def _refuse_rejected(work: Work, number: int, rows: Rows) -> None:
    if work.job.settings.on_error == "skip":
        return
    for place, reason in rows.rejected.items():
        raise DataError(
            "a row cannot be computed",
            where=f"{_file_of(work, number, rows, place)}, row {rows.first + place}",
            got=reason,
            hint="mend it, or --on-error skip; what is done stays",
        )


def _file_of(work: Work, number: int, rows: Rows, place: int) -> str:
    if "file" in rows.columns and work.sources[work.job.parts[number].input].kind == "images":
        return str(rows.columns["file"][place])
    return work.job.inputs[work.job.parts[number].input].path


class _Parts:
    """The part that is being written; all but the end of the block happens in one thread."""

    def __init__(
        self, work: Work, done: Callable[[Done], None], advance: Callable[[int], None]
    ) -> None:
        self._work, self._done, self._advance = work, done, advance
        self._stack = ExitStack()
        self._failed = False
        self._begin()

    def _begin(self) -> None:
        self._writer: Writer | None = None
        self._rows = 0
        self._rejected: list[dict[str, Any]] = []

    def __enter__(self) -> None:
        self._stack.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, number: int, rows: Rows, codes: NDArray[Any]) -> None:
        """Take the next rows of a part."""
        with self._all_or_nothing():
            if self._writer is None:
                self._writer = self._stack.enter_context(self._work.sink.open(number))
            self._writer.write(rows, codes)
            self._rows += len(codes)
            self._rejected += _rejected(self._work, number, rows)
            self._advance(len(codes))

    def end(self, number: int) -> None:
        """Make a part whole, then record it."""
        with self._all_or_nothing():
            if self._rejected:
                lines = b"".join(msgspec.json.encode(row) + b"\n" for row in self._rejected)
                atomic.write(self._work.folder / REJECTED / f"{part_name(number)}.jsonl", lines)
            self._stack.close()
            rejected = len(self._rejected)
            size_bytes = self._work.sink.size_bytes(number)
            self._done(Done(number, self._rows - rejected, rejected, size_bytes))
            self._begin()

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """After a failure nothing more is written: a part would lack rows."""
        if self._failed:
            raise RuntimeError("an earlier write failed")
        try:
            with disk_reported(self._work.folder):
                yield
        except BaseException:
            self._failed = True
            raise


@contextmanager
def disk_reported(folder: Path) -> Iterator[None]:
    """What the system says of a file that cannot be written becomes an error of ours.

    Raises:
        BadInputError: the disk is full, or something else is wrong with it.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise BadInputError(
            "the output cannot be written",
            where=error.filename or folder,
            got=error.strerror or str(error),
            hint=("make room" if full else "mend that")
            + " and give the same command again: what is done stays",
        ) from error


def _rejected(work: Work, number: int, rows: Rows) -> Iterator[dict[str, Any]]:
    """What is kept of each row that was rejected."""
    for place, reason in rows.rejected.items():
        kept = {name: _plain(values, place) for name, values in rows.columns.items()}
        file = _file_of(work, number, rows, place)
        yield {"file": file, "row": rows.first + place, "reason": reason, "columns": kept}


def _plain(values: Any, place: int) -> Any:
    """A value of a column as JSON has it, or its text."""
    value = values if isinstance(values, str) else values[place]
    for method in ("as_py", "item"):
        if hasattr(value, method):
            value = getattr(value, method)()
    return value if isinstance(value, int | float | str | bool | None) else str(value)
