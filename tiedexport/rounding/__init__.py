r"""How far a correct runtime may stray from the float64 reference: a derived bound per element.

What is known is computed. The bundle's weights and the runtime's input are the golden ones rounded
to nearest, so two float64 trajectories, one with stored weights and one with the stored input as
well, give the errors of storage exactly, however structured the weights are.

What is not known is bounded. Roundings at run time are modelled as independent, uniform and of
mean zero (Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci.
Comput. 41, 2019): rounding v to nearest errs by at most u|v|, hence with a variance of at most
(u v)²/3, or (underflow)²/3 where v is subnormal. A weighted op adds, for z = Σ_j t_j with n terms
t_j = w_j h_j, the bias being one of them, and Q = Σ t_j²:

* products: u_acc² Q/3 (none where the runtime fuses multiply and add);
* sums: (u_acc²/3) Σ_k s_k² over the partial sums s_k. With terms in exchangeable order, s_k is a
  sample of k of n terms without replacement, so
  E s_k² = (k/n)² z² + k(n-k)/(n(n-1)) (Q - z²/n), and summing over k = 1 … n
  **Σ_k E s_k² = (n+1)(2z² + Q)/6** exactly. Terms of one sign have Q ≥ z²/n only, and it is z²
  that counts; terms of random sign have z² ≈ Q. A sum in blocks or trees has shorter partial sums
  and stays below the sequential one. But most kernels add in order of storage, which is one order:
  its partial sums may stray further on the way to a small z (Σ_k s_k² up to 9 times its expectation
  among 17,000 random sums), so they are followed at the ends of 16 segments, and the larger counts;
* a drift where terms are small against the spacing g ≤ 2 u_acc |s| of the sums: the error of s + t
  depends on t mod g alone, and if the density of t falls from f(0) on, its mean lies within
  f(0) g²/8 of zero, towards losing t. Terms of one sign have f(0) = n/Σ|t|, of which the part
  |z|/Σ|t| of one sign counts; with (Σ|t|)² ≥ max(z², Q) the drift of a sum is at most
  u_acc² n |z| Σ_k s_k² / (2 max(z², Q)), or (n u_acc)² |z|/6 for terms of one sign: nothing in
  fp32, the beginning of stagnation in fp16. It is carried with its sign, against z;
* storing the output: u² z²/3.

An activation multiplies errors by its largest slope over [z - λσ, z + λσ] and adds its own error of
evaluation. Later layers map errors linearly: independent ones by squared weights. But errors that
reach an output by several paths are correlated (in Wᵀ W x every error of x returns to its own
place, and weights of low rank add up errors that squared weights average out, by up to √n a layer).
So `PROBES` random vectors drawn from the model travel with the data (Hutchinson's estimator of a
diagonal: E (J D^½ r)² = diag(J D Jᵀ) for random signs r), and the variance is the larger of the two
estimates: correlation may widen the bound but never narrows it.

The bound is |stored - golden| + |rounded - stored| + |drift| + λσ with λ = `LAMBDA`. It is of first
order, and it is a model: units that are equal bit by bit make equal errors, which do not average.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.rounding import ops
from tiedexport.rounding.errors import (
    EVALUATION_ROUNDINGS,
    LAMBDA,
    PROBE_QUANTILE,
    PROBES,
    Bounded,
    Errors,
)
from tiedexport.spec import WEIGHTED_OPS, Layer, Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from tiedexport.rounding.ops import Float64

__all__ = [
    "EVALUATION_ROUNDINGS",
    "LAMBDA",
    "PROBES",
    "PROBE_QUANTILE",
    "Bounded",
    "forward",
    "forward_bound",
    "layer_bounds",
    "layer_types",
]


def forward(
    layers: Sequence[Layer], weights: Mapping[str, NDArray[Any]], x: NDArray[Any]
) -> Float64:
    """Evaluate a stage in float64.

    Args:
        layers: the stage's steps.
        weights: arrays by name, of any floating type; memory maps are read block by block.
        x: [n, *element_shape].

    Returns:
        float64 [n, *element_shape of the output].
    """
    h = np.asarray(x, dtype=np.float64)
    for layer in layers:
        if layer.op in WEIGHTED_OPS:
            (h,) = ops.mapped(layer, weights, (h,), lambda block: (block.astype(np.float64),))
            h = h + ops.bias(layer, weights, h)
        else:
            h = ops.elementwise(layer, h)
    return h


def forward_bound(
    layers: Sequence[Layer],
    weights: Mapping[str, NDArray[Any]],
    x: NDArray[Any],
    *,
    precision: Precision,
    accumulation: Precision,
    io: Precision,
    kept: Mapping[str, Precision] = MappingProxyType({}),
) -> Bounded:
    """Evaluate a stage in float64 and bound the error of computing it in lower precision.

    A runtime rounds x to `io`, then to the type of the first layer; keeps weights, biases and the
    output of every op in the type of their layer, and casts between layers of different types; sums
    in `accumulation`; computes what follows the last weighted op in fp32; and rounds the result to
    `io`. It may keep more precision than that, never less.

    Args:
        layers: the stage's steps, at least one.
        weights: the weights of the golden outputs (fp32 masters), by name; read block by block.
        x: float64 [n, *element_shape], the golden input.
        precision: the type of storage.
        accumulation: the type of sums; where it is `precision`, a layer that is kept in another
            type sums in that one.
        io: the type of the stage's input and output.
        kept: weight → the type of storage of its layer and of the activations after it, where that
            is not `precision`.

    Raises:
        ValueError: the layers do not fit the weights, or there are none.
    """
    *_, (_, bounded) = layer_bounds(
        layers,
        weights,
        x,
        precision=precision,
        accumulation=accumulation,
        io=io,
        kept=kept,
    )
    return bounded


def layer_bounds(
    layers: Sequence[Layer],
    weights: Mapping[str, NDArray[Any]],
    x: NDArray[Any],
    *,
    precision: Precision,
    accumulation: Precision,
    io: Precision,
    kept: Mapping[str, Precision] = MappingProxyType({}),
) -> Iterator[tuple[Layer, Bounded]]:
    """The output of every layer and its bound, in order; arguments as of `forward_bound`.

    An output is bounded as it is stored: in the type of the weighted layer that it comes from, in
    fp32 after the last of them, and the last output of all in `io`.

    Raises:
        ValueError: the layers do not fit the weights.
    """
    types = layer_types(layers, precision, kept)
    errors = Errors(x, types[0] if types else precision, io)
    for i, (layer, kind) in enumerate(zip(layers, types, strict=True)):
        if layer.op in WEIGHTED_OPS:
            errors.cast(kind, f"the input of layer {i} ({layer.op})")
            errors.weigh(layer, weights, kind if accumulation is precision else accumulation)
            errors.check_range(f"the output of layer {i} ({layer.op})", kind)
        else:
            errors.activate(layer, kind)
        if i == len(layers) - 1:
            kind = io
            errors.store(io)
            errors.check_range("the output", io)
        yield layer, errors.bounded(kind)


def layer_types(
    layers: Sequence[Layer], precision: Precision, kept: Mapping[str, Precision]
) -> tuple[Precision, ...]:
    """The type that each layer computes and stores in: its own, or that of the weighted one before.

    Layers before the first weighted one have its type; what follows the last is in fp32.
    """
    weighted = [i for i, layer in enumerate(layers) if layer.op in WEIGHTED_OPS]
    if not weighted:
        return (Precision.FP32,) * len(layers)
    kind = kept.get(str(layers[weighted[0]].weight), precision)
    types = []
    for layer in layers[: weighted[-1] + 1]:
        if layer.op in WEIGHTED_OPS:
            kind = kept.get(str(layer.weight), precision)
        types.append(kind)
    return (*types, *[Precision.FP32] * (len(layers) - len(types)))
