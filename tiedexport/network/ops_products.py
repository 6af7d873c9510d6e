"""Matrix products and convolutions of a parsed network: sums in float32, weights a part at a time.

A 16-bit weight is widened in blocks of columns or one tap of a kernel after another, so that it is
never in memory a second time.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.network.ops_constants import array_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Float32 = NDArray[np.float32]
    Index = tuple[Any, ...]

BLOCK_BYTES = 2 << 20
"""Float32 bytes of a block of columns."""


def matrix_multiply(layer: Any, module: Any, operands: Sequence[Array]) -> Float32:
    """The product of two matrices or vectors, or of stacks of them, as the layer orients them."""
    left, right = operands
    flags = layer.op0.name, layer.op1.name
    left = left[..., None, :] if flags[0] == "VECTOR" else _oriented(left, flags[0])
    right = right[..., None] if flags[1] == "VECTOR" else _oriented(right, flags[1])
    product = _product(left.astype(np.float32, copy=False), right)
    if flags[1] == "VECTOR":
        product = product[..., 0]
    if flags[0] == "VECTOR":
        product = product[..., 0] if flags[1] == "VECTOR" else product[..., 0, :]
    return product


def _oriented(matrix: Array, flag: str) -> Array:
    if flag not in ("NONE", "TRANSPOSE"):
        raise ValueError(f"the matrix operation {flag} is not evaluated")
    return np.swapaxes(matrix, -1, -2) if flag == "TRANSPOSE" else matrix


def _product(left: Float32, right: Array) -> Float32:
    if right.dtype == np.float32:
        product: Float32 = np.matmul(left, right)
        return product
    columns = right.shape[-1]
    step = max(1, BLOCK_BYTES // (4 * max(1, right.size // max(1, columns))))
    blocks = (right[..., at : at + step] for at in range(0, max(1, columns), step))
    return np.concatenate([np.matmul(left, b.astype(np.float32)) for b in blocks], axis=-1)


def convolution(layer: Any, module: Any, operands: Sequence[Array]) -> Float32:
    """A convolution over any number of spatial axes: x [n, channels, ...], kernel [maps, ...]."""
    x = operands[0].astype(np.float32, copy=False)
    groups = int(layer.num_groups)
    geometry = _Geometry(layer)
    kernel, bias = _kernel_and_bias(layer, module, operands)
    kernel = kernel.reshape(groups, layer.num_output_maps // groups, -1, *geometry.size)
    padded = np.pad(x, [(0, 0), (0, 0), *zip(geometry.before, geometry.after, strict=True)])
    reach = [d * (k - 1) + 1 for d, k in zip(geometry.dilation, geometry.size, strict=True)]
    out = [
        (extent - r) // s + 1
        for extent, r, s in zip(padded.shape[2:], reach, geometry.stride, strict=True)
    ]
    y = np.zeros((len(x), groups, kernel.shape[1], math.prod(out)), np.float32)
    for tap, window in geometry.taps(out):
        seen = padded[window].reshape(len(x), groups, kernel.shape[2], y.shape[3])
        y += np.matmul(kernel[tap].astype(np.float32), seen)
    return _biased(y.reshape(len(x), layer.num_output_maps, *out), bias)


def deconvolution(layer: Any, module: Any, operands: Sequence[Array]) -> Float32:
    """The adjoint of a convolution: x [n, channels, ...], kernel [channels, maps / groups, ...]."""
    x = operands[0].astype(np.float32, copy=False)
    groups, extents = int(layer.num_groups), x.shape[2:]
    geometry = _Geometry(layer)
    kernel, bias = _kernel_and_bias(layer, module, operands)
    kernel = kernel.reshape(groups, x.shape[1] // groups, -1, *geometry.size)
    full = [
        (extent - 1) * s + d * (k - 1) + 1
        for extent, s, d, k in zip(
            extents, geometry.stride, geometry.dilation, geometry.size, strict=True
        )
    ]
    flat = x.reshape(len(x), groups, kernel.shape[1], math.prod(extents))
    y = np.zeros((len(x), layer.num_output_maps, *full), np.float32)
    for tap, window in geometry.taps(extents):
        weights = np.swapaxes(kernel[tap], 1, 2).astype(np.float32)
        share = np.matmul(weights, flat)
        y[window] += share.reshape(len(x), layer.num_output_maps, *extents)
    ends = [extent - after for extent, after in zip(full, geometry.after, strict=True)]
    kept = map(slice, geometry.before, ends)
    inside: Index = (..., *kept)
    return _biased(y[inside], bias)


class _Geometry:
    """Where the taps of a kernel fall, an entry a spatial axis."""

    def __init__(self, layer: Any) -> None:
        if layer.padding_mode.name != "EXPLICIT_ROUND_DOWN":
            raise ValueError(f"the padding mode {layer.padding_mode.name} is not evaluated")
        self.size = tuple(layer.kernel_size_nd)
        self.stride = tuple(layer.stride_nd)
        self.dilation = tuple(layer.dilation_nd)
        self.before, self.after = tuple(layer.pre_padding), tuple(layer.post_padding)

    def taps(self, extents: Sequence[int]) -> Iterator[tuple[Index, Index]]:
        """Each tap as an index of the kernel, and what it meets of the padded side as one of x."""
        for tap in itertools.product(*map(range, self.size)):
            along = zip(tap, self.dilation, self.stride, extents, strict=True)
            window = (slice(d * t, d * t + s * (n - 1) + 1, s) for t, d, s, n in along)
            yield (..., *tap), (..., *window)


def _kernel_and_bias(
    layer: Any, module: Any, operands: Sequence[Array | None]
) -> tuple[Array, Array | None]:
    """Each from an input of the layer where it has one, else from the layer itself."""
    _, kernel, bias, *_ = (*operands, None, None)
    kernel = array_of(module, layer.kernel) if kernel is None else kernel
    bias = array_of(module, layer.bias) if bias is None else bias
    return kernel, bias if bias.size else None


def _biased(y: Float32, bias: Array | None) -> Float32:
    if bias is None:
        return y
    return y + bias.astype(np.float32).reshape(-1, *(1,) * (y.ndim - 2))
