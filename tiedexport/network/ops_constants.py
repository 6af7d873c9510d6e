"""The numbers that a parsed network holds, as numpy arrays over the parser's memory.

The parser maps a graph's external data and points into it: reading a weight copies nothing. The
bindings hand out arrays of every type but bf16, which numpy lacks; for that, the address is read
from the binding's own object, after a trial on an object whose address is known.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.trt import DATA_TYPES, once

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES: dict[str, np.dtype[Any]] = {
    **{name: precision.dtype for name, precision in DATA_TYPES.items()},
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}


def numpy_type(dtype: Any) -> np.dtype[Any]:
    """A TensorRT DataType as numpy's.

    Raises:
        ValueError: it is none that is evaluated.
    """
    if dtype.name not in _DTYPES:
        raise ValueError(f"the type {dtype.name} is not evaluated, only {', '.join(_DTYPES)}")
    return _DTYPES[dtype.name]


def array_of(module: Any, weights: Any) -> NDArray[Any]:
    """What a layer holds, flat, as a read-only view that lives as long as the parser.

    Args:
        module: the package that `weights` is of.
        weights: what its bindings return: an array, or a `Weights` of a type that numpy lacks.

    Raises:
        ValueError: the numbers cannot be reached, or are of a type that is not evaluated.
    """
    if isinstance(weights, np.ndarray):
        array = weights.reshape(-1)
    else:
        dtype = numpy_type(weights.dtype)
        if not _shows_addresses(module):
            raise ValueError(f"these bindings do not show weights of type {weights.dtype.name}")
        memory = (ctypes.c_char * weights.nbytes).from_address(_struct(weights).values or 0)
        array = np.frombuffer(memory, dtype) if weights.nbytes else np.empty(0, dtype)
    array.flags.writeable = False
    return array


class _Struct(ctypes.Structure):
    """nvinfer1::Weights of NvInferRuntimeBase.h."""

    _fields_ = (
        ("type", ctypes.c_int32),
        ("values", ctypes.c_void_p),
        ("count", ctypes.c_int64),
    )


def _struct(weights: Any) -> _Struct:
    """What a pybind11 object of one simple base holds: a pointer behind Python's own header."""
    held = ctypes.c_void_p.from_address(id(weights) + object.__basicsize__).value
    return _Struct.from_address(held or 0)


@once
def _shows_addresses(module: Any) -> bool:
    """Whether `_struct` finds the address that a `Weights` was made with."""
    known = np.arange(3, dtype=np.uint16)
    made = module.Weights(module.DataType.BF16, known.ctypes.data, known.size)
    found = _struct(made)
    expected = int(module.DataType.BF16), known.ctypes.data, known.size
    return (found.type, found.values, found.count) == expected
