"""Arrow arrays on the memory of numpy's.

`pyarrow.array` does the same, but imports pandas first where it is installed: half a second that
every process would pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray


def of_numbers(values: NDArray[Any]) -> pa.Array:
    """Numbers [n], C-contiguous → an array of the same type."""
    import pyarrow as pa

    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def of_booleans(values: NDArray[np.bool_]) -> pa.Array:
    """Booleans [n] → an array of bits."""
    import pyarrow as pa

    bits = pa.py_buffer(np.packbits(values, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, bits])


def of_texts(values: Sequence[str]) -> pa.Array:
    """Texts → an array of them."""
    import pyarrow as pa

    encoded = [text.encode() for text in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def of_column(values: Any, count: int) -> Any:
    """What `Rows` has of a column, for `count` rows: a text for all, texts, numbers, or Arrow's."""
    if isinstance(values, str):
        return of_texts([values] * count)
    if isinstance(values, list):
        return of_texts(values)
    return of_numbers(values) if isinstance(values, np.ndarray) else values
