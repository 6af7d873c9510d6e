"""Inputs that are tables: Parquet, and Arrow's files and streams. pyarrow reads them."""

from __future__ import annotations

import importlib
import math
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.data.extras import needed_for
from tiedexport.data.files import samples_name
from tiedexport.data.tables import columns_in_words, table_damage_reported
from tiedexport.encode.arrow import of_booleans
from tiedexport.encode.rows import Intake, Rows, checked_rows, merged
from tiedexport.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

MAGICS = {b"PAR1": "parquet", b"ARRO": "arrow", b"\xff\xff\xff\xff": "arrow stream"}
"""How the files begin."""

_READ_AHEAD_BYTES = 1 << 20


class Table:
    """A `Source` of a file whose one column holds the samples; the others are kept.

    Raises:
        DataError: it is damaged, or which column is meant is not clear.
        MissingRuntimeError: pyarrow is not installed.
    """

    def __init__(self, path: str, intake: Intake, digest: str, kind: str) -> None:
        with needed_for("a table", "pyarrow", extra="data"):
            importlib.import_module("pyarrow.parquet")  # fails here, before any file is opened
        self.path, self.kind, self.digest = path, kind, digest
        self._intake = intake
        with table_damage_reported(path):
            self._schema, sizes = _layout(path, kind)
        self.cuts: tuple[int, ...] | None = tuple(accumulate(sizes, initial=0))
        self.rows = sum(sizes)
        if len(set(self._schema.names)) < len(self._schema.names):
            raise DataError(
                "two columns have one name",
                where=path,
                got=", ".join(self._schema.names),
                hint="rename one of them",
            )
        self._column = _sample_column(self._schema, intake, path)
        self._shape = _shape_of(self._schema.field(self._column).type)

    def schema(self) -> pa.Schema:
        """All columns but that of the samples."""
        return self._schema.remove(self._schema.get_field_index(self._column)).remove_metadata()

    def read(self, start: int, stop: int, block: int) -> Iterator[Rows]:
        """Called as `Source` says; `start` and `stop` are cuts."""
        first = start
        with table_damage_reported(self.path):
            for table in _of_size(self._batches(start, stop, block), self._schema, block):
                yield self._rows(first, table)
                first += len(table)

    def _batches(self, start: int, stop: int, block: int) -> Iterator[pa.RecordBatch]:
        assert self.cuts is not None
        groups = [
            group for group in range(len(self.cuts) - 1)
            if start <= self.cuts[group] < stop and self.cuts[group] < self.cuts[group + 1]
        ]  # fmt: skip
        if self.kind == "parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(self.path, buffer_size=_READ_AHEAD_BYTES, pre_buffer=False) as file:
                yield from file.iter_batches(block, groups)
            return
        for batch in _record_batches(self.path, self.kind, groups):
            yield from (batch.slice(at, block) for at in range(0, len(batch), block))

    def _rows(self, first: int, table: pa.Table) -> Rows:
        import pyarrow as pa

        place = table.column_names.index(self._column)
        column = table.column(place).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0) if column.num_chunks else pa.nulls(0, column.type)
        kept = table.remove_column(place)
        columns = dict(zip(kept.column_names, kept.columns, strict=True))
        values, rejected = _values(column, self._intake, self._shape)
        rows = checked_rows(first, values, columns, self._intake, self._column_name)
        return merged(rows, rejected) if rejected else rows

    @property
    def _column_name(self) -> str:
        return f"{self.path}, column {self._column}"


def _layout(path: str, kind: str) -> tuple[pa.Schema, list[int]]:
    """The schema, and how many rows each row group or record batch has."""
    if kind == "parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            groups = range(file.num_row_groups)
            return file.schema_arrow, [file.metadata.row_group(g).num_rows for g in groups]
    import pyarrow as pa

    sizes = [len(batch) for batch in _record_batches(path, kind)]
    with pa.memory_map(path) as file:
        opened = pa.ipc.open_stream(file) if kind == "arrow stream" else pa.ipc.open_file(file)
        return opened.schema, sizes


def _record_batches(
    path: str, kind: str, numbers: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Those record batches, or all: views of the mapped file where it is not compressed."""
    import pyarrow as pa

    with pa.memory_map(path) as file:
        if kind == "arrow stream":  # which has to be gone through from its beginning
            last = None if numbers is None else max(numbers, default=-1) + 1
            for number, batch in enumerate(islice(pa.ipc.open_stream(file), last)):
                if numbers is None or number in numbers:
                    yield batch
            return
        opened = pa.ipc.open_file(file)
        numbers = range(opened.num_record_batches) if numbers is None else numbers
        yield from map(opened.get_batch, numbers)


def _of_size(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Tables of `rows` rows, but for the last; of no batches, one empty table."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    count, given = 0, False
    for batch in batches:
        while count + len(batch) >= rows:
            head = batch.slice(0, rows - count)
            yield pa.Table.from_batches([*waiting, head])
            batch, waiting, count, given = batch.slice(len(head)), [], 0, True
        if len(batch):
            waiting.append(batch)
            count += len(batch)
    if waiting or not given:
        yield pa.Table.from_batches(waiting, schema)


def _sample_column(schema: pa.Schema, intake: Intake, path: str) -> str:
    """The column that was asked for, or the only one that can hold samples, by type or name."""
    able = [field.name for field in schema if _can_hold(field.type, intake)]
    found = samples_name(able, intake.column)
    if found is None:
        raise DataError(
            "which column holds the samples?" if able else "no column can hold samples",
            where=path,
            got=columns_in_words(schema),
            expected=f"{intake.column or 'one column'} of lists of "
            f"{math.prod(intake.spec.element_shape)} numbers",
            hint="--column NAME" if able else None,
        )
    return found


def _can_hold(kind: Any, intake: Intake) -> bool:
    import pyarrow as pa

    element, length = kind, 1
    if isinstance(element, pa.BaseExtensionType):
        element = element.storage_type
    while pa.types.is_fixed_size_list(element):
        length *= element.list_size
        element = element.value_type
    variable = pa.types.is_list(element) or pa.types.is_large_list(element)
    if variable:
        element = element.value_type
    number = pa.types.is_floating(element) or (intake.images and pa.types.is_uint8(element))
    fits = length == math.prod(intake.spec.element_shape)
    return number and (fits or variable)


def _shape_of(kind: Any) -> tuple[int, ...]:
    """The axes of a sample that the column's type tells; () where it tells none."""
    import pyarrow as pa

    if isinstance(kind, pa.FixedShapeTensorType):
        return tuple(kind.shape)
    axes = []
    while pa.types.is_fixed_size_list(kind):
        axes.append(kind.list_size)
        kind = kind.value_type
    return tuple(axes)


def _values(
    column: Any, intake: Intake, shape: tuple[int, ...]
) -> tuple[NDArray[Any], dict[int, str]]:
    """The samples of a column as [n, ...], zeros where there is none; and why there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    shape = shape or intake.spec.element_shape
    rejected: dict[int, str] = {}
    good = np.ones(len(column), bool)
    if column.null_count:
        good = column.is_valid().to_numpy(zero_copy_only=False)
        rejected = dict.fromkeys(map(int, np.flatnonzero(~good)), "null")
    if not pa.types.is_fixed_size_list(column.type):
        lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        for i in np.flatnonzero(good & (lengths != math.prod(shape))):
            rejected[int(i)] = f"{lengths[i]} values, not {math.prod(shape)}"
            good[i] = False
    flat = column if good.all() else column.filter(of_booleans(good))
    while pa.types.is_nested(flat.type):
        flat = flat.flatten()
    if flat.null_count:
        whole = flat.is_valid().to_numpy(zero_copy_only=False).reshape(-1, math.prod(shape)).all(1)
        places = np.flatnonzero(good)[~whole]
        rejected |= dict.fromkeys(map(int, places), "a null among its values")
        flat = flat.fill_null(0)
    values = flat.to_numpy(zero_copy_only=False).reshape(-1, *shape)
    if good.all():
        return values, rejected
    filled = np.zeros((len(column), *shape), values.dtype)
    filled[good] = values
    return filled, rejected
