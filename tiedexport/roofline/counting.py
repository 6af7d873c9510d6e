"""The bytes that a stage must move and the operations it must do, counted from its layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from tiedexport.spec import Layer, StageSpec


@dataclass(frozen=True)
class Work:
    """What one call cannot do without.

    Attributes:
        weight_bytes: each weight and bias that the stage uses, once: a tied weight serves both its
            uses by one reading, where a runtime can do that.
        moved_bytes: those and all inputs and outputs.
        operations: multiplications and additions, 2 m n k for a product of [m, k] and [k, n].
    """

    weight_bytes: int
    moved_bytes: int
    operations: int


def work(stage: StageSpec, weights: Mapping[str, np.ndarray], batch: int) -> Work:
    """Count one call.

    Args:
        stage: of the manifest.
        weights: its weights by name, in the precision that they are stored in.
        batch: samples a call.
    """
    names = {name for layer in stage.layers for name in (layer.weight, layer.bias) if name}
    weight_bytes = sum(weights[name].nbytes for name in names)
    sides = (*stage.inputs, *stage.outputs)
    sample_bytes = sum(math.prod(side.element_shape) * side.dtype.itemsize for side in sides)
    operations, shape = 0, stage.inputs[0].element_shape
    for layer in stage.layers:
        kernel = weights[layer.weight].shape if layer.weight else ()
        after = _shape_after(layer, kernel, shape)
        operations += 2 * _products(layer, kernel, shape, after)
        shape = after
    return Work(weight_bytes, weight_bytes + batch * sample_bytes, batch * operations)


def _shape_after(layer: Layer, kernel: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of one sample after a layer; ONNX's rules for Conv and ConvTranspose, dilation 1."""
    if layer.op == "reshape":
        return layer.shape
    if layer.op == "dense":
        return (kernel[1] if layer.transposed else kernel[0],)
    if layer.op not in ("conv", "conv_transpose"):
        return shape
    strides, pads = layer.strides or (1, 1), layer.pads or (0, 0)
    if layer.op == "conv":
        axes = zip(shape[1:], strides, pads, kernel[2:], strict=True)
        return (kernel[0], *((size + 2 * p - k) // s + 1 for size, s, p, k in axes))
    extra = layer.output_padding or (0, 0)
    around = zip(shape[1:], strides, pads, kernel[2:], extra, strict=True)
    return (kernel[1], *((size - 1) * s + k + more - 2 * p for size, s, p, k, more in around))


def _products(
    layer: Layer, kernel: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]
) -> int:
    """Multiplications for one sample, those with padding included.

    The whole kernel meets every position of a convolution's output, and of a transposed one's
    input.
    """
    positions = {"dense": (), "conv": after[1:], "conv_transpose": before[1:]}.get(layer.op)
    return 0 if positions is None else math.prod(kernel) * math.prod(positions)
