"""What a stage's values are and how far off they may be, carried from layer to layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.rounding import ops
from tiedexport.spec import Layer, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tiedexport.rounding.ops import Float64

LAMBDA = 4.0
"""Bound in standard deviations: a normal error exceeds it with probability 6e-5, and the variance
of one rounding is at most, on average 0.54 times, the one that is assumed."""

PROBES = 16
PROBE_QUANTILE = 5.364
"""Student's t with `PROBES` degrees of freedom where the normal has `LAMBDA`: the price of a
standard deviation that is estimated from that many probes."""

EVALUATION_ROUNDINGS = {Precision.FP32: 8, Precision.FP16: 4, Precision.BF16: 4}
"""Roundings at full scale (`ops.evaluation_scale`) in evaluating an activation. In 16 bits those of
x/2 (1 + erf(x/√2)) or 1/(1 + exp(-x)) with each step stored; in fp32 the polynomials of vectorised
kernels, which are less exact (at most 4.6 u in ONNX Runtime's tanh, 5.8 u in torch's gelu)."""


@dataclass(frozen=True)
class Bounded:
    """What a stage should output and how far off it may be.

    Attributes:
        value: float64 [n, *element_shape], the exact output.
        bound: float64 of the same shape, positive: |output - value| ≤ bound.
        overflow: which numbers may leave the range of their type, in words; empty if none. The
            bound presumes that they do not: an output that is not finite then has its reason here.
        peak: the largest magnitude on the way to these numbers from those of the layer before:
            theirs, and those of weights, biases and partial sums in any order.
    """

    value: Float64
    bound: Float64
    overflow: str = ""
    peak: float = 0.0


class Errors:
    """Three trajectories, drift and variance of errors, all [n, …]; probes [PROBES, n, …]."""

    def __init__(self, x: NDArray[Any], precision: Precision, io: Precision) -> None:
        self.golden: Float64 = np.asarray(x, dtype=np.float64)
        self.stored = self.golden
        self.rounded = _rounded(_rounded(self.golden, io), precision)
        self.drift = np.zeros_like(self.golden)
        self.variance = np.zeros_like(self.golden)
        self.probes = np.zeros((PROBES, *self.golden.shape))
        self.precision = precision
        self.overflow = ""
        self._peak = 0.0
        self._random = np.random.default_rng(0)
        for kind in {io, precision}:
            self._check(self.golden, "the input", kind)

    def weigh(
        self, layer: Layer, weights: Mapping[str, NDArray[Any]], accumulation: Precision
    ) -> None:
        """Apply a weighted op and add the errors of its products, its sums and its storage."""
        n = len(self.golden)
        carried = self.probes.reshape(-1, *self.golden.shape[1:])
        exact, stored, squared = ops.mapped(
            layer,
            weights,
            (
                self.golden,
                np.concatenate([self.stored, self.rounded, self.drift, carried]),
                np.concatenate([self.rounded**2, self.variance]),
            ),
            self._matrices,
        )
        bias = ops.bias(layer, weights, exact)
        stored_bias = _rounded(bias, self.precision)
        in_order = ops.squared_partial_sums(
            layer,
            weights,
            self.rounded,
            stored_bias,
            lambda block: _rounded(block, self.precision),
        )
        self._check(bias, f"bias {layer.bias}", self.precision)
        self.golden = exact + bias
        self.stored = stored[:n] + stored_bias
        self.rounded = stored[n : 2 * n] + stored_bias
        self.drift = stored[2 * n : 3 * n]
        self.variance = squared[n:]
        self.probes = stored[3 * n :].reshape(PROBES, *exact.shape)
        terms = ops.terms(layer, weights[str(layer.weight)].shape) + (layer.bias is not None)
        square_terms = squared[:n] + squared[n:] + stored_bias**2
        self._sum(terms, square_terms, in_order, accumulation)
        self.store(self.precision)

    def _sum(
        self, terms: int, square_terms: Float64, in_order: Float64, accumulation: Precision
    ) -> None:
        """Add the errors of `terms` products and their sums.

        `square_terms` is Q, and `in_order` is Σ_k s_k² in order of storage.
        """
        u, underflow = accumulation.unit_roundoff, accumulation.underflow
        z, square_sum = self.rounded, self.rounded**2 + self.variance
        exchangeable = (terms + 1) * (2 * square_sum + square_terms) / 6
        partial_sums = np.maximum(exchangeable, in_order)
        tiny = np.finfo(np.float64).tiny
        drift = z * u**2 * terms * partial_sums / (2 * np.maximum(square_sum, square_terms) + tiny)
        self._add((u**2 * (square_terms + partial_sums) + terms * underflow**2) / 3)
        self.drift = self.drift - drift
        peak = np.abs(z) + LAMBDA * np.sqrt(square_terms)
        self._check(peak, "a partial sum", accumulation)

    def cast(self, precision: Precision, what: str) -> None:
        """Go on in another type, which is exact in fp32 and a rounding in any other."""
        if precision is not self.precision and precision is not Precision.FP32:
            self.check_range(what, precision)
            self.store(precision)
        self.precision = precision

    def activate(self, layer: Layer, precision: Precision) -> None:
        """Apply an activation or a reshape, evaluated and stored in `precision`."""
        if layer.op == "reshape":
            self.drift = ops.elementwise(layer, self.drift)
            self.variance = ops.elementwise(layer, self.variance)
            self.probes = self.probes.reshape(PROBES, *self.variance.shape)
        else:
            reach = self.known() + LAMBDA * self.deviation()
            slope = ops.slope(layer.op, self.rounded - reach, self.rounded + reach)
            self.drift = self.drift * slope
            self.variance = self.variance * slope**2
            self.probes = self.probes * slope
        z = self.rounded
        self.golden, self.stored, self.rounded = (
            ops.elementwise(layer, h) for h in (self.golden, self.stored, self.rounded)
        )
        if layer.op not in ("reshape", "relu"):
            scale = ops.evaluation_scale(layer.op, z, self.rounded)
            roundings = EVALUATION_ROUNDINGS[precision]
            self._add(roundings * (precision.unit_roundoff * scale) ** 2 / 3)
            self.store(precision)

    def store(self, precision: Precision) -> None:
        """Add the error of rounding the present values to `precision`."""
        square = self.rounded**2 + self.variance
        self._add((precision.unit_roundoff**2 * square + precision.underflow**2) / 3)

    def deviation(self) -> Float64:
        """Standard deviation of the errors of computing, without those of storing W and x."""
        probed: Float64 = np.mean(self.probes**2, axis=0) * (PROBE_QUANTILE / LAMBDA) ** 2
        deviation: Float64 = np.sqrt(np.maximum(self.variance, probed))
        return deviation

    def known(self) -> Float64:
        """The part of the bound that is no matter of chance."""
        stored, rounded = self.stored - self.golden, self.rounded - self.stored
        known: Float64 = np.abs(stored) + np.abs(rounded) + np.abs(self.drift)
        return known

    def bound(self) -> Float64:
        """The bound on the error of the present values against the golden ones."""
        return self.known() + LAMBDA * self.deviation()

    def bounded(self, precision: Precision) -> Bounded:
        """The present values, stored in `precision`, and what has been noted of the range so far.

        A relu is exact where it is zero for certain; half the smallest number there bounds it too.
        """
        peak = max(self._peak, float(np.max(np.abs(self.golden), initial=0.0)))
        self._peak = 0.0
        bound = np.maximum(self.bound(), precision.underflow)
        return Bounded(self.golden, bound, self.overflow, peak)

    def check_range(self, what: str, precision: Precision) -> None:
        """Note it if present values may exceed the largest number of `precision`."""
        self._check(np.abs(self.golden) + self.bound(), what, precision)

    def _check(self, magnitude: NDArray[Any], what: str, precision: Precision) -> None:
        peak = float(np.max(np.abs(magnitude), initial=0.0))
        self._peak = max(self._peak, peak)
        if not self.overflow and peak > precision.largest:
            self.overflow = f"{what} may overflow {precision}: {peak:.3g} > {precision.largest:.3g}"

    def _matrices(self, block: NDArray[Any]) -> tuple[Float64, ...]:
        exact = block.astype(np.float64)
        self._check(exact, "a weight", self.precision)
        stored = _rounded(block, self.precision)
        return exact, stored, stored**2

    def _add(self, variance: Float64) -> None:
        self.variance = self.variance + variance
        signs = self._random.integers(0, 2, self.probes.shape, dtype=np.int8) * 2 - 1
        self.probes = self.probes + signs * np.sqrt(variance)


def _rounded(array: NDArray[Any], precision: Precision) -> Float64:
    """To the nearest number of `precision`, as float64; out of range, the largest one."""
    with np.errstate(over="ignore"):
        stored = array.astype(precision.dtype).astype(np.float64)
    return np.clip(stored, -precision.largest, precision.largest)
