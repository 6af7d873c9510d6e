"""What every kind of input hands on: rows that a stage can take, and those that it cannot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tiedexport.data.inputs import stage_input

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    from tiedexport.spec import TensorSpec

BLOCK_BYTES, BLOCK_ROWS = 8 << 20, 1 << 14
"""The most that is read, computed and written at once: it stays in the caches in between."""


@dataclass(frozen=True)
class Intake:
    """What a stage takes.

    Attributes:
        spec: of its input.
        images: whether uint8 is taken, and divided by 255.
        column: of tables, which holds the samples; None where one must be meant.
    """

    spec: TensorSpec
    images: bool
    column: str | None = None


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of an input, in order.

    Attributes:
        first: the number of the first in its file, from 0.
        x: [n, *element_shape] in the stage's type; zeros for a row that is rejected.
        rejected: place in `x` → why that row cannot be computed.
        columns: what goes with each row into a table: name → n values.
    """

    first: int
    x: NDArray[Any]
    columns: dict[str, Any] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)


class Source(Protocol):
    """One input.

    Attributes:
        path: as it was given.
        kind: in a word.
        rows: how many.
        cuts: row numbers where a part may begin at little cost, in order, from 0 on; None: any.
        digest: SHA-256 of what shows that it is still the same.
    """

    path: str
    kind: str
    rows: int
    cuts: tuple[int, ...] | None
    digest: str

    def schema(self) -> pa.Schema:
        """The columns that go with each row into a table."""
        ...

    def read(self, start: int, stop: int, block: int) -> Iterator[Rows]:
        """The rows from `start` to `stop`, about `block` at once; at least one, if empty, `Rows`.

        Raises:
            DataError: they cannot be read at all.
        """
        ...


def checked_rows(
    first: int, array: NDArray[Any], columns: dict[str, Any], intake: Intake, where: str
) -> Rows:
    """Rows of an array, of which those that are not finite are rejected.

    Raises:
        ArrayError: the shape does not fit the stage.
        DataError: the values are no floating-point numbers.
    """
    with np.errstate(over="ignore"):  # what the stage's type cannot hold becomes infinite
        x = stage_input(array, intake.spec, where, images=intake.images)
    if array.dtype.kind in "ub" or np.isfinite(x).all():
        return Rows(first, np.ascontiguousarray(x), columns)
    finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    bad = np.flatnonzero(~finite)
    x = x.copy()
    x[bad] = 0
    return Rows(first, x, columns, dict.fromkeys(map(int, bad), "NaN or infinity"))


def merged(rows: Rows, rejected: dict[int, str]) -> Rows:
    """With more rows rejected."""
    return Rows(
        rows.first, rows.x, rows.columns, dict(sorted({**rows.rejected, **rejected}.items()))
    )


def blocks(start: int, stop: int, block: int) -> Iterator[tuple[int, int]]:
    """Bounds of blocks; of no rows, one empty block."""
    for first in range(start, max(stop, start + 1), block):
        yield first, min(first + block, stop)
