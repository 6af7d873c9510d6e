"""The layers of a stage in float64 and numpy alone: linear maps, activations and their slopes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from tiedexport.spec import Layer

    Float64 = NDArray[np.float64]
    Matrices = Callable[[NDArray[Any]], tuple[Float64, ...]]

BLOCK_BYTES = 16 << 20
"""Float64 bytes of a block of weight rows; three forms of a block exist at a time."""

SEGMENTS = 16
"""Parts of a sum whose ends are followed in order of storage."""


def mapped(
    layer: Layer,
    weights: Mapping[str, NDArray[Any]],
    operands: Sequence[Float64],
    matrices: Matrices,
) -> tuple[Float64, ...]:
    """Map every operand by its own form of the weight; `matrices` makes the forms of a block.

    The rows of a weight are the outputs of `dense` and `conv`, whose blocks yield slices of the
    result, and the inputs of their adjoints, whose blocks yield summands.
    """
    weight = weights[str(layer.weight)]
    adjoint = layer.op == "conv_transpose" or layer.transposed
    parts: list[list[Float64]] = [[] for _ in operands]
    for rows in blocks(weight):
        for part, x, w in zip(parts, operands, matrices(np.asarray(weight[rows])), strict=True):
            if not adjoint:
                part.append(_linear(layer, x, w))
            elif part:
                part[0] += _linear(layer, x[:, rows], w)
            else:
                part.append(_linear(layer, x[:, rows], w))
    return tuple(np.concatenate(part, axis=1) for part in parts)


def squared_partial_sums(
    layer: Layer,
    weights: Mapping[str, NDArray[Any]],
    x: Float64,
    bias: Float64,
    stored: Callable[[NDArray[Any]], Float64],
) -> Float64:
    """Σ_k s_k² of sums in order of storage, the bias first or last, whichever is more.

    The ends of `SEGMENTS` segments are followed; within one, terms are in exchangeable order.

    Returns:
        float64 [n, *element_shape of the output].
    """
    weight = weights[str(layer.weight)]
    terms_each = terms(layer, weight.shape) / x.shape[1]
    step = math.ceil(x.shape[1] / SEGMENTS)
    if layer.op == "conv_transpose" or layer.transposed:
        walk = _Walk(bias)
        for rows in blocks(weight, step):
            w, part = stored(np.asarray(weight[rows])), x[:, rows]
            walk.go(_linear(layer, part, w), _linear(layer, part**2, w**2), len(w) * terms_each)
        return walk.squares()
    found = []
    for rows in blocks(weight):
        w, walk = stored(np.asarray(weight[rows])), _Walk(bias if bias.size == 1 else bias[rows])
        for start in range(0, x.shape[1], step):
            part, columns = x[:, start : start + step], w[:, start : start + step]
            ends, squares = _linear(layer, part, columns), _linear(layer, part**2, columns**2)
            walk.go(ends, squares, part.shape[1] * terms_each)
        found.append(walk.squares())
    return np.concatenate(found, axis=1)


class _Walk:
    """The partial sums of one segment after another.

    From s on by d, in m steps whose squares sum to Q: Σ_k E s_k = m s + (m + 1) d/2 and
    Σ_k E s_k² = m s² + (m + 1) s d + (m + 1)(2d² + Q)/6.
    """

    def __init__(self, bias: Float64) -> None:
        self._bias = bias
        self._terms = 0.0
        self._end: Any = 0.0
        self._sums: Any = 0.0
        self._squares: Any = 0.0

    def go(self, d: Float64, square_terms: Float64, m: float) -> None:
        s = self._end
        self._squares += m * s**2 + (m + 1) * s * d + (m + 1) * (2 * d**2 + square_terms) / 6
        self._sums += m * s + (m + 1) * d / 2
        self._end = s + d
        self._terms += m

    def squares(self) -> Float64:
        b = self._bias
        last = self._squares + (self._end + b) ** 2
        first = self._squares + 2 * b * self._sums + (self._terms + 1) * b**2
        found: Float64 = np.maximum(first, last)
        return found


def blocks(weight: NDArray[Any], most: int | None = None) -> Iterator[slice]:
    """Slices of at most `most` rows and `BLOCK_BYTES` in float64, of one row at least."""
    step = max(1, BLOCK_BYTES // (8 * math.prod(weight.shape[1:])))
    step = min(step, most or step)
    return (slice(start, start + step) for start in range(0, len(weight), step))


def _linear(layer: Layer, x: Float64, w: Float64) -> Float64:
    """The linear part of a weighted op in float64."""
    if layer.op == "dense":
        return x @ (w if layer.transposed else w.T)
    (sy, sx), (py, px) = layer.strides or (1, 1), layer.pads or (0, 0)
    height, width = x.shape[2:]
    ky, kx = w.shape[2:]
    taps = [(i, j) for i in range(ky) for j in range(kx)]
    if layer.op == "conv":
        padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
        out_y, out_x = (height + 2 * py - ky) // sy + 1, (width + 2 * px - kx) // sx + 1
        y = np.zeros((len(x), out_y, out_x, len(w)))
        for i, j in taps:
            window = padded[:, :, i : i + sy * out_y : sy, j : j + sx * out_x : sx]
            y += np.tensordot(window[:, :, :out_y, :out_x], w[:, :, i, j], axes=(1, 1))
        return np.moveaxis(y, -1, 1)
    extra_y, extra_x = layer.output_padding or (0, 0)
    full_y, full_x = (height - 1) * sy + ky + extra_y, (width - 1) * sx + kx + extra_x
    full = np.zeros((len(x), full_y, full_x, w.shape[1]))
    for i, j in taps:
        full[:, i : i + sy * (height - 1) + 1 : sy, j : j + sx * (width - 1) + 1 : sx] += (
            np.tensordot(x, w[:, :, i, j], axes=(1, 0))
        )
    return np.moveaxis(full[:, py : full_y - py, px : full_x - px], -1, 1)


def bias(layer: Layer, weights: Mapping[str, NDArray[Any]], z: Float64) -> Float64:
    """The bias as float64, shaped to be added to z [n, channels, …]; zero where there is none."""
    if layer.bias is None:
        return np.zeros((1,) * (z.ndim - 1))
    return weights[layer.bias].astype(np.float64).reshape(-1, *(1,) * (z.ndim - 2))


def terms(layer: Layer, shape: tuple[int, ...]) -> int:
    """The largest number of products that are summed into one output element."""
    if layer.op == "conv_transpose":
        sy, sx = layer.strides or (1, 1)
        return shape[0] * math.ceil(shape[2] / sy) * math.ceil(shape[3] / sx)
    return shape[0] if layer.transposed else math.prod(shape[1:])


def elementwise(layer: Layer, z: Float64) -> Float64:
    """An activation, in float64, or a reshape."""
    if layer.op == "reshape":
        return z.reshape(len(z), *layer.shape)
    if layer.op == "relu":
        return np.maximum(z, 0.0)
    if layer.op == "tanh":
        return np.tanh(z)
    return _sigmoid(z) if layer.op == "sigmoid" else z * _normal_cdf(z)


def _sigmoid(z: Float64) -> Float64:
    small = np.exp(-np.abs(z))
    result: Float64 = np.where(z < 0, small, 1.0) / (1.0 + small)
    return result


def _normal_cdf(z: Float64) -> Float64:
    """Φ(z) = erfc(-z/√2)/2, which does not cancel for negative z as 1 + erf does."""
    erfc = np.frompyfunc(math.erfc, 1, 1)
    return 0.5 * np.asarray(erfc(-z / math.sqrt(2.0)), dtype=np.float64)


def slope(op: str, low: Float64, high: Float64) -> Float64:
    """The largest |slope| of an activation over [low, high]."""
    if op == "relu":
        return (high > 0).astype(np.float64)
    nearest = np.maximum(np.maximum(low, -high), 0.0)  # |z| closest to 0, where slopes peak
    if op == "tanh":
        return 1.0 - np.tanh(nearest) ** 2
    if op == "sigmoid":
        return _sigmoid(nearest) * _sigmoid(-nearest)
    extrema = (-math.sqrt(2.0), math.sqrt(2.0))  # where the second derivative, φ(z)(2 - z²), is 0
    points = [low, high, *(np.clip(z, low, high) for z in extrema)]
    slopes = [_normal_cdf(z) + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi) for z in points]
    largest: Float64 = np.max(np.abs(slopes), axis=0)
    return largest


def evaluation_scale(op: str, z: Float64, y: Float64) -> Float64:
    """The magnitude to which an activation's error of evaluation is relative.

    tanh is evaluated as z times a rational function: relative to y. sigmoid is often evaluated as
    1/2 plus an odd function: relative to 1. 1 + erf in gelu cancels for z < 0: relative to z.
    """
    return {"tanh": np.abs(y), "sigmoid": np.ones_like(z), "gelu": np.abs(z)}[op]
