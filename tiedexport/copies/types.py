"""Which types a weight is cast to, and how the casts round."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

SIGNIFICANDS: dict[np.dtype[Any], int] = {
    np.dtype(np.float64): 52,
    np.dtype(np.float32): 23,
    np.dtype(np.float16): 10,
    np.dtype(ml_dtypes.bfloat16): 7,
    np.dtype(ml_dtypes.float8_e4m3fn): 3,
    np.dtype(ml_dtypes.float8_e4m3fnuz): 3,
    np.dtype(ml_dtypes.float8_e5m2): 2,
    np.dtype(ml_dtypes.float8_e5m2fnuz): 2,
}
"""The types that weights are cast between, with the bits that each stores of a significand."""

Route = tuple[np.dtype[Any], ...]
"""The types that a value is rounded to in turn; none for a value that is not cast."""


def by_width(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Orders types by what they can tell apart: their bytes, then their significand's bits."""
    return dtype.itemsize, SIGNIFICANDS.get(dtype, 0)


def routes(wide: np.dtype[Any], narrow: np.dtype[Any]) -> list[Route]:
    """The ways in which tools cast one type to another that is not wider in bytes.

    All round to nearest, ties to even. From float64 some round to float32 on the way, which gives
    another last bit once in 2^14 elements or so.
    """
    if wide == narrow:
        return [()]
    if wide not in SIGNIFICANDS or narrow not in SIGNIFICANDS or wide.itemsize < narrow.itemsize:
        return []
    single = np.dtype(np.float32)
    through = wide.itemsize > single.itemsize > narrow.itemsize
    return [(narrow,), (single, narrow)] if through else [(narrow,)]


def bits(values: np.ndarray, route: Route = (), *, any_nan: bool = False) -> np.ndarray:
    """The bit patterns of values after a cast, as unsigned integers of the same shape.

    Args:
        values: contiguous along the last axis.
        route: what to round to.
        any_nan: give every NaN one pattern: a cast keeps no payload.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what leaves the range becomes infinite
        for dtype in route:
            values = values.astype(dtype)
    if any_nan and values.dtype in SIGNIFICANDS and (nan := np.isnan(values)).any():
        values = np.where(nan, np.array(np.nan, values.dtype), values)
    width = values.dtype.itemsize
    return values.view(f"u{width}" if width <= 8 else f"V{width}")
