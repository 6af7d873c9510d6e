"""A runtime's arithmetic, simulated: shared by the tests of the forward error bound.

It shares nothing with the bound: torch makes each linear map's dense matrix, numpy adds its
products one by one in the type of accumulation.
"""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from tiedexport.spec import WEIGHTED_OPS, Layer, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

Weights = dict[str, np.ndarray[Any, Any]]
Model = tuple[list[Layer], Weights]

torch.set_num_threads(1)

KINDS = ["random signs", "one sign", "rank 1", "rank 4"]
TORCH = {"relu": torch.relu, "gelu": functional.gelu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


def linear(layer: Layer, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    if layer.op == "dense":
        return functional.linear(x, w.T if layer.transposed else w)
    if layer.op == "conv":
        return functional.conv2d(x, w, stride=layer.strides, padding=layer.pads)
    return functional.conv_transpose2d(
        x, w, stride=layer.strides, padding=layer.pads, output_padding=layer.output_padding
    )


def simulate(model: Model, x: np.ndarray, *types: Any, **named: Any) -> np.ndarray:
    """What the stage puts out; arguments as of `simulated_layers`."""
    return simulated_layers(model, x, *types, **named)[-1]


def simulated_layers(
    model: Model,
    x: np.ndarray,
    precision: Precision,
    accumulation: Precision = Precision.FP32,
    io: Precision = Precision.FP32,
    kept: Mapping[str, Precision] = MappingProxyType({}),
) -> list[np.ndarray]:
    """What every layer stores in the slowest and least exact runtime, which rounds wherever it may.

    A layer whose weight is kept in another type is in that one, as are the activations after it.
    """
    layers, weights = model
    weighted = [i for i, layer in enumerate(layers) if layer.op in WEIGHTED_OPS]
    kind = kept.get(layers[weighted[0]].weight, precision)
    h, found = x.astype(io.dtype).astype(kind.dtype), []
    for i, layer in enumerate(layers):
        if layer.op == "reshape":
            h = h.reshape(len(h), *layer.shape)
        elif layer.op in WEIGHTED_OPS:
            kind = kept.get(layer.weight, precision)
            sums = kind if accumulation is precision else accumulation
            h = weighed(layer, weights, h.astype(kind.dtype), sums)
        else:
            h = TORCH[layer.op](torch.from_numpy(h.astype(np.float32))).numpy()
            h = h if i > weighted[-1] else h.astype(kind.dtype)
        h = h.astype(io.dtype) if i == len(layers) - 1 else h
        found.append(h.astype(np.float64))
    return found


def weighed(layer: Layer, weights: Weights, h: np.ndarray, accumulation: Precision) -> np.ndarray:
    storage, size = h.dtype, int(np.prod(h.shape[1:]))
    stored = torch.from_numpy(weights[layer.weight].astype(storage).astype(np.float64))
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *h.shape[1:])
    image = linear(layer, eye, stored)
    matrix = image.reshape(size, -1).numpy().astype(accumulation.dtype)
    terms = h.reshape(len(h), -1).astype(accumulation.dtype)
    total = np.zeros((len(h), matrix.shape[1]), accumulation.dtype)
    for k in range(size):
        total = total + terms[:, k : k + 1] * matrix[k]
    if layer.bias is not None:
        bias = weights[layer.bias].astype(storage).astype(accumulation.dtype)
        total = total + np.repeat(bias, matrix.shape[1] // len(bias))
    return total.astype(storage).reshape(len(h), *image.shape[1:])


def matrix(rng: np.random.Generator, rows: int, columns: int, kind: str) -> np.ndarray:
    if kind == "random signs":
        return rng.standard_normal((rows, columns)) * np.sqrt(2 / columns)
    if kind == "one sign":
        return rng.random((rows, columns)) * 2 / columns
    rank = int(kind.split()[1])
    low = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    return 1.5 * low / np.sqrt(rows * columns)


def tied_stack(
    rng: np.random.Generator, widths: tuple[int, ...], activation: str, kind: str
) -> Model:
    layers: list[Layer] = []
    mirrored: list[Layer] = []
    weights: Weights = {}
    for i, (wide, narrow) in enumerate(pairwise(widths)):
        weights[f"w{i}"] = matrix(rng, narrow, wide, kind).astype(np.float32)
        weights[f"e{i}"] = (0.05 * rng.standard_normal(narrow)).astype(np.float32)
        weights[f"d{i}"] = (0.05 * rng.standard_normal(wide)).astype(np.float32)
        layers += [Layer("dense", f"w{i}", f"e{i}"), Layer(activation)]
        output = Layer(activation if i else "sigmoid")
        mirrored = [Layer("dense", f"w{i}", f"d{i}", transposed=True), output, *mirrored]
    return layers + mirrored, weights


def conv_stack(rng: np.random.Generator, activation: str = "relu") -> Model:
    geometry = {"strides": (2, 2), "pads": (1, 1)}
    weights = {
        "k": rng.standard_normal((5, 3, 3, 3)) * np.sqrt(2 / 27),
        "a": 0.05 * rng.standard_normal(5),
        "w": rng.standard_normal((7, 5 * 4 * 3)) * np.sqrt(2 / 60),
        "b": 0.05 * rng.standard_normal(3),
    }
    layers = [
        Layer("conv", "k", "a", **geometry),
        Layer(activation),
        Layer("reshape", shape=(60,)),
        Layer("dense", "w"),
        Layer("dense", "w", transposed=True),
        Layer(activation),
        Layer("reshape", shape=(5, 4, 3)),
        Layer("conv_transpose", "k", "b", output_padding=(1, 0), **geometry),
        Layer("sigmoid"),
    ]
    return layers, {name: w.astype(np.float32) for name, w in weights.items()}


def sparse_images(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    images: np.ndarray = (rng.random((n, size)) < 0.3) * rng.random((n, size))
    return images


def cancelling_stack(rng: np.random.Generator, x: np.ndarray) -> Model:
    """Rank one after a sum that its bias cancels: one error, spread over every unit, adds up."""
    n = x.shape[1]
    w = rng.standard_normal((n, n)).astype(np.float16)
    u = rng.standard_normal(n).astype(np.float16)
    v = (1 + rng.integers(0, 16, n) / 16).astype(np.float16)
    total = (u.astype(np.float64) @ w.astype(np.float64) @ x[0]) * v.astype(np.float64)
    weights = {"w": w, "uv": v[:, None] * u, "b": -total.astype(np.float16), "mean": v[None] / n}
    layers = [Layer("dense", "w"), Layer("dense", "uv", "b"), Layer("dense", "mean")]
    return layers, {name: array.astype(np.float32) for name, array in weights.items()}
