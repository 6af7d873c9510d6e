"""Random inputs for graphs of unknown purpose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

Feed = dict[str, np.ndarray]

_DTYPES: dict[str, Any] = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "bool": np.bool_,
    "string": np.object_,
    **{name: np.dtype(name) for name in ("int8", "int16", "int32", "int64")},
    **{name: np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
}
_SIZES = ((2, 3), (1, 1), (3, 8), (1, 16), (1, 32), (1, 64), (1, 224))
"""Of the first axis, and of every other, where the graph leaves them open."""

_FEW = 16  # integers where no table says how many there may be
_MOST = 1 << 24  # elements of open axes: five of them would fill the memory


@dataclass(frozen=True)
class Style:
    """Integers below `limit` and not below `lowest`; normal floats of this standard deviation."""

    limit: int
    lowest: int = 0
    scale: float = 1.0


def feeds(inputs: Sequence[Any], table: int | None) -> Iterator[tuple[str, Iterator[Feed]]]:
    """Sets of inputs, the most telling first, for as long as the model refuses them.

    Args:
        inputs: ONNX Runtime's descriptions: name, type, shape.
        table: rows of the smallest table that integers may index; None where there is none.

    Yields:
        What they are, in words, and the feeds, one for each size of the open axes.

    Raises:
        ValueError: an input that is no dense tensor, or of a type that numpy lacks.
    """
    for spec in inputs:
        if not spec.type.startswith("tensor(") or spec.type[7:-1] not in _DTYPES:
            raise ValueError(f"no random inputs for {spec.name}, a {spec.type}")
    limit = table or _FEW
    for style in (Style(limit), Style(limit, scale=0.01), Style(2), Style(2, lowest=1), Style(1)):
        words = f"normal floats × {style.scale:g}, integers {style.lowest} to {style.limit - 1}"
        yield words, _feeds(inputs, style)


def _feeds(inputs: Sequence[Any], style: Style) -> Iterator[Feed]:
    for number in range(len(_SIZES)):
        shapes = _shapes(inputs, number)
        is_open = any(not isinstance(dim, int) for spec in inputs for dim in spec.shape)
        if is_open and sum(map(math.prod, shapes.values())) > _MOST:
            continue
        rng = np.random.default_rng(number)
        yield {
            spec.name: _random(
                rng, np.dtype(_DTYPES[spec.type[7:-1]]), shapes[spec.name], style, number
            )
            for spec in inputs
        }


def _shapes(inputs: Sequence[Any], number: int) -> dict[str, list[int]]:
    """The shape of each input, with the open axes filled in."""
    batch, other = _SIZES[number]
    leading = {spec.shape[0] for spec in inputs if spec.shape}

    def size(dim: int | str | None, axis: int) -> int:
        """A name means one size wherever it stands, also in a sum of names."""
        if isinstance(dim, int):
            return max(dim, 0)
        if not dim:
            return other if axis else batch
        if "+" in dim:
            return sum(size(part.strip(), 1) for part in dim.split("+"))
        if dim.isdigit():
            return int(dim)
        return batch if dim in leading else other

    return {spec.name: [size(dim, axis) for axis, dim in enumerate(spec.shape)] for spec in inputs}


def _random(
    rng: np.random.Generator, dtype: np.dtype[Any], shape: list[int], style: Style, number: int
) -> np.ndarray:
    if dtype.kind == "f":
        return (style.scale * rng.standard_normal(shape)).astype(dtype)
    if dtype.kind == "b":  # a single one steers an If: both branches are to be taken
        return rng.random(shape) < 0.5 if shape else np.array(number % 2 == 0)
    if dtype.kind == "O":
        letters = rng.integers(0, 26, (*shape, 3))
        words = ["".join(chr(97 + i) for i in word) for word in letters.reshape(-1, 3)]
        return np.array(words, dtype=np.object_).reshape(shape)
    return rng.integers(style.lowest, style.limit, shape).astype(dtype)


def smallest_table(model: ir.Model) -> int | None:
    """Rows of the smallest stored table that a graph's inputs could index; None without one."""
    rows = [
        int(table.shape.numpy()[0])
        for graph in model.graphs()
        for node in graph
        if (node.domain, node.op_type, len(node.inputs)) == ("", "Gather", 2)
        if not node.attributes.get_int("axis", 0)
        for table, indices in [(node.inputs[0], node.inputs[1])]
        if table is not None and table.is_initializer() and table.shape
        if indices is not None and not indices.is_initializer() and not _is_constant(indices)
    ]
    return min(rows, default=None)


def _is_constant(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "Constant"
