"""Where codes go: Parquet files, one a part, or one .npy file that parts are written into."""

from __future__ import annotations

import io
import math
import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from tiedexport import atomic
from tiedexport.encode.arrow import of_booleans, of_column, of_numbers
from tiedexport.encode.job import ARRAY, Done, all_done, part_name
from tiedexport.errors import DataError, UsageError
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from tiedexport.encode.job import Job
    from tiedexport.encode.rows import Rows
    from tiedexport.spec import TensorSpec

GROUP_BYTES, GROUP_ROWS = 16 << 20, 1 << 16
"""The most of a row group of Parquet: of codes, and of rows."""


class Writer(Protocol):
    """An open part."""

    def write(self, rows: Rows, codes: NDArray[Any]) -> None:
        """Take the next rows, of which rejected ones have no code."""
        ...


class Sink(Protocol):
    """The output of a job."""

    def begin(self) -> None:
        """Get ready, before any part is written; called under the folder's lock."""
        ...

    def open(self, number: int) -> Any:
        """A context manager of a `Writer`: the part is whole and synced at its end, or not at all.

        Raises:
            OSError: it cannot be written.
        """
        ...

    def intact(self, done: Done) -> bool:
        """Whether a part that was recorded is still there."""
        ...

    def size_bytes(self, number: int) -> int:
        """Of a part that is whole."""
        ...

    def finish(self) -> None:
        """All parts are done; called under the folder's lock, perhaps more than once."""
        ...


class ParquetSink:
    """A folder with one Parquet file a part: the codes as lists of fixed size, and what is kept.

    Args:
        folder: of the output.
        job: what is done.
        spec: of the stage's output, whose name the column has.
        kept: the columns that go with each row.

    Raises:
        DataError: a column that is kept has the name of the new one.
    """

    def __init__(self, folder: Path, job: Job, spec: TensorSpec, kept: pa.Schema) -> None:
        import pyarrow as pa

        self._folder, self._job, self._spec = folder, job, spec
        if spec.name in kept.names:
            raise DataError(
                "a column that is kept has the name of the new one",
                where=job.inputs[0].path if job.inputs else folder,
                got=spec.name,
                hint="rename that column in the input",
            )
        self._dtype = stored_dtype(spec)
        element = pa.from_numpy_dtype(self._dtype)
        self._size = math.prod(spec.element_shape)
        shape = {"shape": str(list(spec.element_shape))}
        code = pa.field(spec.name, pa.list_(element, self._size), nullable=False, metadata=shape)
        self.schema = kept.append(code)
        group = max(1, min(GROUP_ROWS, GROUP_BYTES // (self._size * spec.dtype.itemsize)))
        self.group_rows = -(-group // job.block) * job.block

    def begin(self) -> None:
        """Nothing: each part makes its own file."""

    @contextmanager
    def open(self, number: int) -> Iterator[Writer]:
        """Called as `Sink` says."""
        with atomic.replacing(self.path(number)) as file:
            writer = _ParquetPart(file, self)
            try:
                yield writer
                writer.close()
            except BaseException:
                writer.abandon()
                raise

    def path(self, number: int) -> Path:
        """Of a part's file."""
        return self._folder / f"{part_name(number)}.parquet"

    def table(self, rows: Rows, codes: NDArray[Any]) -> pa.Table:
        """Rows with their codes, without those that were rejected."""
        import pyarrow as pa

        good = np.ones(len(codes), bool)
        good[list(rows.rejected)] = False
        flat = codes.reshape(len(codes), self._size).astype(self._dtype, copy=False)
        if rows.rejected:
            flat = flat[good]
        field = self.schema.field(self._spec.name)
        code = pa.FixedSizeListArray.from_arrays(of_numbers(flat.reshape(-1)), type=field.type)
        names = self.schema.names[:-1]
        kept = pa.Table.from_arrays(
            [of_column(rows.columns[name], len(codes)) for name in names],
            schema=self.schema.remove(len(names)),
        )
        kept = kept.filter(of_booleans(good)) if rows.rejected else kept
        return kept.append_column(field, code)

    def intact(self, done: Done) -> bool:
        """Called as `Sink` says."""
        return self.path(done.part).is_file() and self.size_bytes(done.part) == done.size_bytes

    def size_bytes(self, number: int) -> int:
        """Called as `Sink` says."""
        return self.path(number).stat().st_size

    def finish(self) -> None:
        """Nothing: each part is where it belongs."""


class _ParquetPart:
    """Row groups of a size that does not depend on how rows came."""

    def __init__(self, file: IO[bytes], sink: ParquetSink) -> None:
        import pyarrow.parquet as pq

        self._sink = sink
        self._waiting: list[pa.Table] = []
        self._rows = 0
        # Codes hardly compress, and dictionaries of them are as large as they are.
        kept = list(sink.schema.names[:-1])
        code = f"{sink.schema.names[-1]}.list.element"
        self._writer = pq.ParquetWriter(
            file, sink.schema, version="2.6", use_dictionary=kept,
            compression={**dict.fromkeys(kept, "zstd"), code: "none"},
            write_statistics=kept,
        )  # fmt: skip

    def write(self, rows: Rows, codes: NDArray[Any]) -> None:
        self._waiting.append(self._sink.table(rows, codes))
        self._rows += len(self._waiting[-1])
        if self._rows >= self._sink.group_rows:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow as pa

        table = pa.concat_tables(self._waiting)
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        self._waiting, self._rows = [], 0

    def close(self) -> None:
        """Write what waits, and the footer."""
        if self._waiting:
            self._write_group()
        self._writer.close()

    def abandon(self) -> None:
        """The file is going: let pyarrow not write its footer into it when it is collected."""
        with suppress(Exception):
            self._writer.close()
        self._writer.is_open = False


class ArraySink:
    """One .npy file with a row for each row of the inputs; those that are rejected are NaN.

    It grows in the job's folder and takes its place when all parts are done.
    """

    def __init__(self, target: Path, folder: Path, job: Job, spec: TensorSpec) -> None:
        self._target, self._staged = target, folder / ARRAY
        self._folder, self._job = folder, job
        self._dtype = stored_dtype(spec)
        self._shape = (job.rows, *spec.element_shape)
        self._row_bytes = math.prod(spec.element_shape) * self._dtype.itemsize

    @property
    def _header(self) -> bytes:
        buffer = io.BytesIO()
        fields = {"descr": self._dtype.str, "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(buffer, fields)
        return buffer.getvalue()

    @property
    def _size(self) -> int:
        return len(self._header) + self._shape[0] * self._row_bytes

    def begin(self) -> None:
        """Take the whole room now: a disk that is too small shows before the work."""
        if self._staged.exists():
            return
        done = all_done(self._folder)
        if self._is_whole(self._target):
            if len(done) < len(self._job.parts):  # a record was removed: its parts are done again
                self._target.replace(self._staged)
            return
        if done:
            raise UsageError(
                "the rows that earlier calls computed are gone",
                where=self._target,
                got="neither this file nor an unfinished one",
                hint=f"rm -r '{self._folder}' begins anew",
            )
        with atomic.replacing(self._staged) as file:
            file.write(self._header)
            file.flush()
            os.posix_fallocate(file.fileno(), 0, self._size)

    def _is_whole(self, path: Path) -> bool:
        return path.is_file() and path.stat().st_size == self._size

    @contextmanager
    def open(self, number: int) -> Iterator[Writer]:
        """Called as `Sink` says; half a part is no harm, as nothing counts that is not recorded."""
        with self._staged.open("r+b") as file:
            file.seek(len(self._header) + self._job.parts[number].offset * self._row_bytes)
            yield _ArrayPart(file, self._dtype)
            file.flush()
            os.fsync(file.fileno())

    def intact(self, done: Done) -> bool:
        """Called as `Sink` says."""
        return self._is_whole(self._staged) or self._is_whole(self._target)

    def size_bytes(self, number: int) -> int:
        """Called as `Sink` says."""
        part = self._job.parts[number]
        return (part.stop - part.start) * self._row_bytes

    def finish(self) -> None:
        """Let the file take its place."""
        if self._staged.exists():
            atomic.move(self._staged, self._target)


class _ArrayPart:
    """A place in the file, which goes on from one call to the next."""

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any]) -> None:
        self._file, self._dtype = file, dtype

    def write(self, rows: Rows, codes: NDArray[Any]) -> None:
        codes = codes.astype(self._dtype, copy=False)
        codes[list(rows.rejected)] = np.nan
        self._file.write(codes.data)


def stored_dtype(spec: TensorSpec) -> np.dtype[Any]:
    """The type of codes in files: neither Arrow nor .npy has bf16."""
    return np.dtype(np.float32) if spec.dtype == Precision.BF16 else spec.dtype.dtype
