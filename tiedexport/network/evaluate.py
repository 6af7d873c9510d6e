"""A parsed network, executed in numpy: whether TensorRT was told to compute the right thing.

Weights, orientations, biases and types are those of the network, so a mistake in any of them shows
in the result: that much is proof. The rounding is a prediction. Every tensor is rounded to its
declared type, once, and sums are kept in float32. The parser makes two layers of an ONNX Gemm, a
product and the sum with a bias; between them nothing is rounded, as in a kernel that adds the bias
before it stores (where the bias cancels the product, rounding there as well errs up to 10 times as
much as `rounding.forward_bound` allows). An engine may keep more between fused layers. Its kernels
may also sum in fp16, which TensorRT does not exclude: nothing here simulates that.
"""

from __future__ import annotations

from collections import Counter
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.errors import RuntimeFailedError
from tiedexport.network.ops import OPERATIONS
from tiedexport.network.ops_constants import numpy_type

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from tiedexport.network import Node, Parsed

    Array = NDArray[Any]


def evaluate(
    parsed: Parsed, feeds: Mapping[str, Array], wanted: Collection[str]
) -> dict[str, Array]:
    """Execute a network.

    Args:
        parsed: the network; its weights are read where the parser holds them.
        feeds: an array for every input by name, in its declared type and shape.
        wanted: names of tensors: those of the graph's values, as the parser keeps them.

    Returns:
        The wanted tensors by name, each in its declared type and in memory of its own.

    Raises:
        RuntimeFailedError: a layer that is not evaluated, or feeds that do not fit.
    """
    nodes, unrounded = _in_order(parsed), _products_with_bias(parsed)
    last_reader = {tensor.name: node for node in nodes for tensor in filter(None, node.inputs)}
    values = {tensor.name: _fed(tensor, feeds) for tensor in parsed.inputs}
    found = {name: values[name].copy() for name in wanted if name in values}
    for node in nodes:
        name, wide, dtype = _result(parsed, node, values)
        values[name] = wide if name in unrounded else _rounded(wide, dtype)
        if name in wanted:
            found[name] = np.array(_rounded(wide, dtype), order="C")
        for tensor in filter(None, node.inputs):
            if last_reader[tensor.name] is node:
                values.pop(tensor.name, None)
    if absent := set(wanted) - found.keys():
        given = ", ".join(tensor.name for tensor in parsed.outputs)
        raise RuntimeFailedError(
            "the parsed network has no such tensors",
            where=f"a network that gives {given}" if given else "a network without outputs",
            got=", ".join(sorted(absent)),
        )
    return found


def _in_order(parsed: Parsed) -> list[Node]:
    """Every layer behind those whose results it reads; the parser adds some before them."""
    makers: dict[str, Node] = {}
    for node in parsed.nodes:
        if node.kind not in OPERATIONS:
            known = ", ".join(OPERATIONS)
            raise _failed(node, "a kind of layer that is not evaluated", node.kind, known)
        for tensor in node.outputs:
            if makers.setdefault(tensor.name, node) is not node:
                raise _failed(node, "two layers give one tensor", tensor.name)
    reads = {
        name: [tensor.name for tensor in filter(None, node.inputs)] for name, node in makers.items()
    }
    order = TopologicalSorter(reads).static_order()
    return [makers[name] for name in order if name in makers]


def _products_with_bias(parsed: Parsed) -> set[str]:
    """Products that nothing reads but a sum with one row: those of an ONNX Gemm with a bias."""
    read = Counter(tensor.name for node in parsed.nodes for tensor in filter(None, node.inputs))
    read.update(tensor.name for tensor in parsed.outputs)
    products = {node.outputs[0].name for node in parsed.nodes if node.kind == "MATRIX_MULTIPLY"}
    return {
        product.name
        for node in parsed.nodes
        if node.kind == "ELEMENTWISE" and node.layer.op.name == "SUM"
        for product, bias in (node.inputs, node.inputs[::-1])
        if product.name in products and read[product.name] == 1 and _is_row(bias)
    }


def _is_row(tensor: Any) -> bool:
    return all(extent == 1 for extent in tuple(tensor.shape)[:-1])


def _rounded(wide: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(all="ignore"):  # beyond its range, a type has its infinity, as in an engine
        return wide.astype(dtype, copy=False)


def _result(
    parsed: Parsed, node: Node, values: Mapping[str, Array]
) -> tuple[str, Array, np.dtype[Any]]:
    """The only output of a layer: its name, its value before rounding, its declared type."""
    (output,) = node.outputs
    operands = [None if tensor is None else values[tensor.name] for tensor in node.inputs]
    try:
        with np.errstate(all="ignore"):
            wide = OPERATIONS[node.kind](node.layer, parsed.handle.module, operands)
        dtype = numpy_type(output.dtype)
    except (ValueError, IndexError, TypeError) as error:
        raise _failed(node, "a layer that cannot be evaluated", error) from error
    if not _fits(wide, output):
        what = "a layer whose result has another shape than the parser declared"
        raise _failed(node, what, list(wide.shape), list(output.shape))
    return output.name, wide, dtype


def _fed(tensor: Any, feeds: Mapping[str, Array]) -> Array:
    array = feeds.get(tensor.name)
    try:
        dtype = numpy_type(tensor.dtype)
    except ValueError as error:
        raise RuntimeFailedError(
            "an input that is not evaluated", where=tensor.name, got=error
        ) from error
    if array is None or array.dtype != dtype or not _fits(array, tensor):
        raise RuntimeFailedError(
            "an input of the network does not get what it declares",
            where=tensor.name,
            got="nothing" if array is None else f"{array.dtype} {list(array.shape)}",
            expected=f"{dtype} {list(tensor.shape)}",
        )
    return array


def _fits(array: Array, tensor: Any) -> bool:
    """Whether an array has the extents that a tensor declares; -1 is any."""
    declared = tuple(tensor.shape)
    if len(declared) != array.ndim:
        return False
    return all(n in (-1, extent) for n, extent in zip(declared, array.shape, strict=True))


def _failed(node: Node, what: str, got: object, expected: object = None) -> RuntimeFailedError:
    where = f"layer {node.name} ({node.kind})"
    return RuntimeFailedError(what, where=where, got=got, expected=expected)
