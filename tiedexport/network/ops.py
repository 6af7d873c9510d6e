"""What each kind of layer of a parsed network computes, in numpy and wider than its result.

An operation takes the layer, the package that it is of, and its operands; `evaluate` rounds what
it returns. Meanings are those of NvInfer.h.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from tiedexport.network import ops_products, ops_shapes
from tiedexport.network.ops_constants import array_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Operation = Callable[[Any, Any, Sequence[Any]], Array]

_WIDER: dict[np.dtype[Any], type] = {
    np.dtype(np.float16): np.float32,
    np.dtype(ml_dtypes.bfloat16): np.float32,
    np.dtype(np.float32): np.float64,
}


def _erf(x: Array) -> Array:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype=x.dtype)


def _normal_cdf(x: Array) -> Array:
    """Φ(x) = erfc(-x/√2)/2, which does not cancel for negative x as 1 + erf does."""
    erfc = np.frompyfunc(math.erfc, 1, 1)
    return 0.5 * np.asarray(erfc(-x / math.sqrt(2.0)), dtype=x.dtype)


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, small, 1.0) / (1.0 + small), dtype=x.dtype)


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


_ACTIVATIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "RELU": lambda x, a, b: np.maximum(x, 0.0),
    "SIGMOID": lambda x, a, b: _sigmoid(x),
    "TANH": lambda x, a, b: np.tanh(x),
    "LEAKY_RELU": lambda x, a, b: np.where(x >= 0.0, x, a * x),
    "ELU": lambda x, a, b: np.where(x >= 0.0, x, a * np.expm1(np.minimum(x, 0.0))),
    "SELU": lambda x, a, b: b * np.where(x > 0.0, x, a * np.expm1(np.minimum(x, 0.0))),
    "SOFTSIGN": lambda x, a, b: x / (1.0 + np.abs(x)),
    "SOFTPLUS": lambda x, a, b: a * np.logaddexp(b * x, 0.0),
    "CLIP": lambda x, a, b: np.maximum(a, np.minimum(b, x)),
    "HARD_SIGMOID": lambda x, a, b: np.clip(a * x + b, 0.0, 1.0),
    "SCALED_TANH": lambda x, a, b: a * np.tanh(b * x),
    "THRESHOLDED_RELU": lambda x, a, b: np.where(x > a, x, 0.0),
    "GELU_ERF": lambda x, a, b: x * _normal_cdf(x),
    "GELU_TANH": lambda x, a, b: _gelu_tanh(x),
}

_UNARY: dict[str, Callable[[Array], Array]] = {
    "EXP": np.exp, "LOG": np.log, "SQRT": np.sqrt, "RECIP": np.reciprocal, "ABS": np.abs,
    "NEG": np.negative, "SIN": np.sin, "COS": np.cos, "TAN": np.tan, "SINH": np.sinh,
    "COSH": np.cosh, "ASIN": np.arcsin, "ACOS": np.arccos, "ATAN": np.arctan,
    "ASINH": np.arcsinh, "ACOSH": np.arccosh, "ATANH": np.arctanh, "CEIL": np.ceil,
    "FLOOR": np.floor, "ERF": _erf, "NOT": np.logical_not, "SIGN": np.sign, "ROUND": np.rint,
    "ISINF": np.isinf, "ISNAN": np.isnan,
}  # fmt: skip


def _divide(x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return np.divide(x, y)
    return np.asarray(np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y)))  # C's: towards zero


_ELEMENTWISE: dict[str, Callable[[Array, Array], Array]] = {
    "SUM": np.add, "PROD": np.multiply, "MAX": np.maximum, "MIN": np.minimum,
    "SUB": np.subtract, "DIV": _divide, "POW": np.power, "FLOOR_DIV": np.floor_divide,
    "AND": np.logical_and, "OR": np.logical_or, "XOR": np.logical_xor, "EQUAL": np.equal,
    "GREATER": np.greater, "LESS": np.less,
}  # fmt: skip


def _activation(layer: Any, module: Any, operands: Sequence[Array]) -> Array:
    function = _named(_ACTIVATIONS, layer.type, "activation")
    result: Array = function(_widened(operands[0]), layer.alpha, layer.beta)
    return result


def _unary(layer: Any, module: Any, operands: Sequence[Array]) -> Array:
    result: Array = _named(_UNARY, layer.op, "unary operation")(_widened(operands[0]))
    return result


def _elementwise(layer: Any, module: Any, operands: Sequence[Array]) -> Array:
    function = _named(_ELEMENTWISE, layer.op, "element-wise operation")
    result: Array = function(*map(_widened, operands))
    return result


def _constant(layer: Any, module: Any, operands: Sequence[Array]) -> Array:
    return array_of(module, layer.weights).reshape(tuple(layer.shape))


def _same(layer: Any, module: Any, operands: Sequence[Array]) -> Array:
    return operands[0]


def _named(table: dict[str, Any], member: Any, what: str) -> Any:
    if member.name not in table:
        raise ValueError(f"the {what} {member.name} is not evaluated")
    return table[member.name]


def _widened(x: Array) -> Array:
    return x.astype(_WIDER.get(x.dtype, x.dtype.type), copy=False)


OPERATIONS: dict[str, Operation] = {
    "ACTIVATION": _activation,
    "CAST": _same,
    "CONCATENATION": ops_shapes.concatenation,
    "CONSTANT": _constant,
    "CONVOLUTION": ops_products.convolution,
    "DECONVOLUTION": ops_products.deconvolution,
    "ELEMENTWISE": _elementwise,
    "GATHER": ops_shapes.gather,
    "IDENTITY": _same,
    "MATRIX_MULTIPLY": ops_products.matrix_multiply,
    "SHAPE": ops_shapes.shape,
    "SHUFFLE": ops_shapes.shuffle,
    "SLICE": ops_shapes.slice_,
    "SQUEEZE": ops_shapes.squeeze,
    "UNARY": _unary,
    "UNSQUEEZE": ops_shapes.unsqueeze,
}
"""LayerType by name → what it computes; `evaluate` rounds that to the type of the result."""
