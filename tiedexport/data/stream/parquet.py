"""Shards that are Parquet files: a row group is gone through from its beginning, page by page."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.data.extras import needed_for
from tiedexport.data.files import SAMPLE_KEYS, samples_name
from tiedexport.data.pixels import check_samples
from tiedexport.data.stream.shards import rows_at_a_time
from tiedexport.data.tables import columns_in_words, table_damage_reported
from tiedexport.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

BUFFER_BYTES = 1 << 18
"""What is read ahead of a column; without a buffer pyarrow reads a row group's column at once."""


class ParquetShards:
    """`Shards` of Parquet files; a block is a row group.

    Args:
        paths: the files.
        column: which one holds the samples, a list of numbers a row; by default the only one of
            lists, or the one that is named as samples are.

    Raises:
        DataError: a file is damaged, has no such column, or differs from the first in its type.
        MissingRuntimeError: pyarrow is not installed.
    """

    def __init__(self, paths: tuple[Path, ...], column: str | None = None) -> None:
        with needed_for("Parquet", "pyarrow", extra="data"):
            import pyarrow.parquet  # noqa: F401 - fails here, before any file is opened
        self.paths = paths
        self._groups: list[tuple[int, int, int]] = []
        rows = [0]
        for shard, path in enumerate(paths):
            with _opened(path) as file:
                column = _column(file.schema_arrow, column, path)
                kind = file.schema_arrow.field(column).type
                if shard == 0:
                    self._column, self._kind = column, kind
                elif kind != self._kind:
                    raise DataError(
                        "the shards differ",
                        where=f"{path}, column {column}",
                        got=str(kind),
                        expected=f"{self._kind}, as in {paths[0]}",
                        hint="save all shards alike, or move this one elsewhere",
                    )
                groups = file.metadata
                for group in range(groups.num_row_groups):
                    self._groups.append((shard, group, rows[-1]))
                    rows.append(rows[-1] + groups.row_group(group).num_rows)
        self.bounds = np.array(rows, np.int64)
        first = self._first_sample()
        self.dtype, self.sample_shape = first.dtype, first.shape[1:]

    def read(self, first: int, stop: int) -> Iterator[NDArray[Any]]:
        """As `Shards.read`."""
        block = int(np.searchsorted(self.bounds, first, side="right")) - 1
        shard, group, at = self._groups[block]
        step = rows_at_a_time(self)
        with _opened(self.paths[shard]) as file:
            for batch in file.iter_batches(step, [group], [self._column], use_threads=False):
                begin, end = max(first - at, 0), min(stop - at, len(batch))
                if begin < end:
                    row = at - self._groups[block][2]
                    where = f"{self.paths[shard]}, column {self._column}, row group {group}"
                    yield self._samples(
                        batch.column(0)[begin:end],
                        f"{where}, rows {row + begin} to {row + end - 1}",
                    )
                at += len(batch)
                if at >= stop:
                    return

    def _first_sample(self) -> NDArray[Any]:
        """[1, *sample_shape]; every other sample is to be of its shape."""
        filled = np.flatnonzero(np.diff(self.bounds))
        if not len(filled):
            raise DataError("the data set is empty", where=self.paths[0], expected="rows")
        shard, group, _ = self._groups[filled[0]]
        path = self.paths[shard]
        with _opened(path) as file:
            batches = file.iter_batches(1, [group], [self._column], use_threads=False)
            column = next(iter(batches)).column(0)
        sample = _values(column, _shape(column, path), path)
        check_samples(sample, path)
        return sample

    def _samples(self, column: pa.Array, where: str) -> NDArray[Any]:
        samples = _values(column, self.sample_shape, where)
        check_samples(samples, where)
        return samples


def _column(schema: pa.Schema, wanted: str | None, path: Path) -> str:
    lists = [field.name for field in schema if _is_list(field.type)]
    if (found := samples_name(lists, wanted)) is not None:
        return found
    raise DataError(
        "no such column of lists" if wanted else "which column holds the samples?",
        where=path,
        got=columns_in_words(schema),
        expected=f"{wanted}: lists of numbers"
        if wanted
        else f"one column of lists of numbers, or one named {', '.join(SAMPLE_KEYS)}",
        hint='in the recipe, under [data]: column = "NAME"',
    )


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    kind = getattr(kind, "storage_type", kind)
    return isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType)


def _shape(column: pa.Array, where: object) -> tuple[int, ...]:
    """Of the sample in a column of one row."""
    if hasattr(column.type, "shape"):
        return tuple(column.type.shape)
    if column.null_count:
        raise _missing_value(where)
    return (len(column.flatten()),)


def _values(column: pa.Array, shape: tuple[int, ...], where: object) -> NDArray[Any]:
    """Rows of a column → [n, *shape] in the type that they are stored in."""
    column = getattr(column, "storage", column)
    numbers = column.flatten()
    if column.null_count or numbers.null_count:
        raise _missing_value(where)
    size = math.prod(shape)
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if (lengths != size).any():
        row = int((lengths != size).argmax())
        raise DataError(
            "the samples differ in length",
            where=where,
            got=f"{lengths[row]} values in the row {row} of these",
            expected=f"{size}",
            hint="bring all samples to one length",
        )
    values: NDArray[Any] = numbers.to_numpy(zero_copy_only=False)
    return values.reshape(-1, *shape)


def _missing_value(where: object) -> DataError:
    return DataError(
        "a value is missing", where=where, got="null", hint="drop the rows that hold a null"
    )


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A file that is read through a small buffer; what pyarrow says of damage is a DataError."""
    import pyarrow.parquet as pq

    with (
        table_damage_reported(path),
        pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file,
    ):
        yield file
