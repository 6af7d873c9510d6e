"""How a copy follows from the tensor that is kept, as nodes and as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from tiedexport.copies.types import bits
from tiedexport.retie.graph import constant_tensor, constant_value

if TYPE_CHECKING:
    from tiedexport.copies import Copy
    from tiedexport.stored import StoredTensor


def ops_between(kept: StoredTensor, copy: Copy) -> list[str]:
    """The nodes that make a copy of the kept tensor, in this order.

    A Cast never comes last: ONNX Runtime computes half precision in fp32 by a Cast of its own, and
    drops the two where they meet, even with optimisations off: the weight would not be rounded.
    From fp64 to half precision there are two, by way of fp32: a single one rounds so in ONNX
    Runtime, but not by the standard.
    """
    if copy.form == "same" and kept.shape == copy.tensor.shape:  # packed types have no axes
        return []
    moved = copy.axes != tuple(range(len(kept.shape)))
    shape = tuple(kept.shape[axis] for axis in copy.axes)
    reshaped, cast = shape != copy.tensor.shape, dtype_of(kept) != dtype_of(copy.tensor)
    needed = {
        "Cast": cast,
        "Transpose": moved,
        "Reshape": reshaped,
        "Identity": cast and not moved and not reshaped,
    }
    first = ["Cast"] * (cast and _rounds_twice(kept.dtype, copy.tensor.dtype))
    return first + [op for op, is_needed in needed.items() if is_needed]


def is_made(kept: StoredTensor, copy: Copy) -> bool:
    """Whether `ops_between` round as the copy did: one that fp64 was rounded to at once may not."""
    if not _rounds_twice(kept.dtype, copy.tensor.dtype):
        return True
    made, stored = (bits(a, any_nan=True) for a in (viewed(whole(kept), copy), whole(copy.tensor)))
    return np.array_equal(made, stored)


def _rounds_twice(wide: np.dtype[Any], narrow: np.dtype[Any]) -> bool:
    return wide.itemsize > np.dtype(np.float32).itemsize > narrow.itemsize


def dtype_of(tensor: StoredTensor) -> ir.DataType:
    """As its graph declares it: packed types as well."""
    value = constant_value(tensor.handle)
    assert value is not None
    return constant_tensor(value).dtype


def whole(tensor: StoredTensor) -> np.ndarray:
    """All elements, in memory."""
    return tensor.content.read(0, tensor.size).reshape(tensor.shape)


def viewed(array: np.ndarray, copy: Copy) -> np.ndarray:
    """What a copy follows from, in the form of the copy."""
    shape, dtype = copy.tensor.shape, copy.tensor.dtype
    with np.errstate(over="ignore", invalid="ignore"):  # what leaves the range becomes infinite
        if _rounds_twice(array.dtype, dtype):
            array = array.astype(np.float32)
        return np.ascontiguousarray(array.transpose(copy.axes).reshape(shape).astype(dtype))


def key(tensor: StoredTensor, file: str) -> tuple[str, str, str]:
    """What tells a tensor apart, in the graph as it was and as it is written: file, scope, name.

    The file has the name that it is written under.

    The scope is a function's only: what is in a branch may move to the main graph.
    """
    scope = tensor.scope if tensor.scope.startswith("function ") else ""
    return file, scope, tensor.name


def label(tensor: StoredTensor) -> str:
    """File and name, with the subgraph or function that it stands in."""
    return f"{tensor.home}: {tensor.name}" + f" in {tensor.scope}" * bool(tensor.scope)
