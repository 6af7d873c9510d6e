"""What is said of tables, whoever reads them: Parquet, and Arrow's files and streams."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tiedexport.errors import BadInputError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa


def columns_in_words(schema: pa.Schema) -> str:
    """Name and type of each column."""
    return ", ".join(f"{field.name}: {field.type}" for field in schema) or "no column"


@contextmanager
def table_damage_reported(path: str | Path) -> Iterator[None]:
    """What pyarrow says of a damaged file becomes a DataError."""
    import pyarrow as pa

    try:
        yield
    except BadInputError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DataError(
            "the table cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="a whole Parquet or Arrow file",
            hint="fetch it again, or write it again",
        ) from error
