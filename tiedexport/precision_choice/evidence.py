"""The evidence that types are chosen by: ranges that were met, and errors that are predicted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import structs

from tiedexport import rounding
from tiedexport.golden import CODE, INPUT
from tiedexport.results.precision import TensorRange, TieChoice
from tiedexport.rounding import ops
from tiedexport.spec import WEIGHTED_OPS, Layer, Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from tiedexport.rounding import Bounded

    Weights = Mapping[str, NDArray[Any]]
    Types = Mapping[str, Precision]

_FP32, _FP16, _BF16 = Precision
_SMALLEST_NORMAL = math.ldexp(1.0, -14)
"""Of fp16: what is smaller loses digits, and at 2^-25 all of them."""

_BATCH_BYTES = 16 << 20
"""Of the probes of the widest layer, in float64: a few times as much is at work."""


class Evidence:
    """What calibration showed: the range of every number, and what error each type would make."""

    def __init__(
        self,
        layers: Sequence[Layer],
        weights: Weights,
        samples: NDArray[Any],
        test_rmse: float | None,
    ) -> None:
        self._layers, self._weights = layers, weights
        self._batches = _batches(layers, weights, samples)
        self._numbers = [_Numbers() for _ in layers]
        self._samples = _Numbers()
        for batch in self._batches:
            self._samples.add(batch)
            for numbers, bounded in zip(self._numbers, self._bounds(batch, {}), strict=True):
                numbers.add(bounded.value, bounded.peak)
        last = len(layers) - 1
        code = [i for i, layer in enumerate(layers) if layer.output == CODE and i != last]
        self._acceptable = {i: self._amplified_by_none(i) for i in (*code, last)}
        self.scale = f"acceptable: {self._acceptable[last]:.2g} in the reconstruction"
        if test_rmse:
            self._acceptable[last] = test_rmse
            self.scale = f"acceptable: {test_rmse:.2g} in the reconstruction, its test RMSE"
        for i in code:
            self.scale += f", {self._acceptable[i]:.2g} in the code"

    def judge(self, group: tuple[str, ...], asked: set[str]) -> TieChoice:
        """The type of one tie, were it alone in not being fp32."""
        tensors = self._tensors_of(group)
        numbers = _Numbers()
        for tensor in tensors.values():
            numbers.merge(tensor)
        ranges = tuple(tensor.range(name) for name, tensor in tensors.items())
        errors: dict[Precision, float] = {}
        chosen, reason = _FP32, "as asked"
        if not asked & set(group):
            errors = self._errors_of(group, numbers.peak)
            chosen = _BF16 if _underflows(errors) else _FP16
            chosen = chosen if errors.get(chosen, math.inf) <= 1 else _FP32
            reason = _reason(chosen, numbers, errors)
        return TieChoice(group, chosen, reason, numbers.peak, numbers.underflow, errors, ranges)

    def acceptable_together(self, ties: Sequence[TieChoice]) -> tuple[TieChoice, ...]:
        """Those of the largest errors in fp32 until the error of all is acceptable."""
        lowered = [tie for tie in ties if tie.precision is not _FP32]
        types = {name: tie.precision for tie in lowered for name in tie.weights}
        if len(lowered) < 2 or (error := self._error(types)) <= 1:
            return tuple(ties)
        worst = max(lowered, key=lambda tie: tie.errors[tie.precision])
        alone = f"error in {worst.precision} {worst.errors[worst.precision]:.2g}"
        reason = f"{alone} of what is acceptable, with those of other ties {error:.2g}"
        raised = structs.replace(worst, precision=_FP32, reason=reason)
        return self.acceptable_together([raised if tie is worst else tie for tie in ties])

    def _bounds(self, batch: NDArray[Any], types: Types) -> Iterator[Bounded]:
        """Of every layer with these weights in these types and all others in fp32."""
        found = rounding.layer_bounds(
            self._layers,
            self._weights,
            batch,
            precision=_FP16,
            accumulation=_FP32,
            io=_FP32,
            kept=dict.fromkeys(self._weights, _FP32) | dict(types),
        )
        return (bounded for _, bounded in found)

    def _error(self, types: Types) -> float:
        """The largest predicted error of an output in what is acceptable; infinite in overflow."""
        squares = dict.fromkeys(self._acceptable, 0.0)
        for batch in self._batches:
            for i, bounded in enumerate(self._bounds(batch, types)):
                if bounded.overflow:
                    return math.inf
                if i in squares:
                    squares[i] += float(np.sum(bounded.bound**2))
        return max(
            math.sqrt(square / self._numbers[i].count) / self._acceptable[i]
            for i, square in squares.items()
        )

    def _amplified_by_none(self, last: int) -> float:
        """What the roundings on the way to an output add up to in bf16 if none is amplified."""
        types = rounding.layer_types(self._layers, _BF16, {})[: last + 1]
        roundings = 1 + sum(map(_roundings, self._layers, types))
        each = rounding.LAMBDA * _BF16.unit_roundoff / math.sqrt(3.0)
        # An output that is zero throughout has no scale of its own: that of the smallest number.
        return max(roundings * each * self._numbers[last].rms, _BF16.underflow)

    def _errors_of(self, group: tuple[str, ...], peak: float) -> dict[Precision, float]:
        """The predicted error in each 16-bit type that the group does not overflow."""
        halves = [kind for kind in (_FP16, _BF16) if peak <= kind.largest]
        errors = {kind: self._error(dict.fromkeys(group, kind)) for kind in halves}
        return {kind: error for kind, error in errors.items() if error < math.inf}

    def _tensors_of(self, group: tuple[str, ...]) -> dict[str, _Numbers]:
        """Every tensor that would be of another type if the group were, by name."""
        types = rounding.layer_types(self._layers, _FP32, dict.fromkeys(group, _FP16))
        names = [INPUT, *(layer.output or f"layer {i}" for i, layer in enumerate(self._layers))]
        found: dict[str, _Numbers] = {}
        for i, (layer, kind) in enumerate(zip(self._layers, types, strict=True)):
            if kind is not _FP16:
                continue
            if layer.op in WEIGHTED_OPS:
                found[names[i]] = self._numbers[i - 1] if i else self._samples
                for name in (layer.weight, layer.bias):
                    if name is not None and name not in found:
                        found[name] = self._stored(name)
            found[names[i + 1]] = self._numbers[i]
        return found

    def _stored(self, name: str) -> _Numbers:
        """Of a weight or bias, block by block."""
        found, array = _Numbers(), self._weights[name]
        for rows in ops.blocks(array):
            found.add(np.asarray(array[rows]))
        return found


class _Numbers:
    """Range of many numbers, of which only counts and sums are kept."""

    def __init__(self) -> None:
        self.count, self.nonzero, self.tiny = 0, 0, 0
        self.largest, self.peak, self.square = 0.0, 0.0, 0.0

    def add(self, array: NDArray[Any], peak: float = 0.0) -> None:
        magnitude = np.abs(array, dtype=np.float64)
        self.count += magnitude.size
        self.nonzero += int(np.count_nonzero(magnitude))
        self.tiny += int(np.count_nonzero((magnitude > 0) & (magnitude < _SMALLEST_NORMAL)))
        self.square += float(np.sum(magnitude**2))
        self.largest = max(self.largest, float(magnitude.max(initial=0.0)))
        self.peak = max(self.peak, peak, self.largest)

    def merge(self, other: _Numbers) -> None:
        self.count += other.count
        self.nonzero += other.nonzero
        self.tiny += other.tiny
        self.square += other.square
        self.largest = max(self.largest, other.largest)
        self.peak = max(self.peak, other.peak)

    def range(self, name: str) -> TensorRange:
        return TensorRange(name, self.largest, self.rms, self.underflow)

    @property
    def underflow(self) -> float:
        """Share, of those that are not zero, that fp16 stores as subnormals or as zero."""
        return self.tiny / max(self.nonzero, 1)

    @property
    def rms(self) -> float:
        return math.sqrt(self.square / max(self.count, 1))


def _batches(
    layers: Sequence[Layer], weights: Weights, samples: NDArray[Any]
) -> list[NDArray[Any]]:
    """The samples in parts that keep the errors of the widest layer in memory's bounds."""
    widest, h = samples[:1].size, samples[:1]
    for layer in layers:
        h = rounding.forward([layer], weights, h)
        widest = max(widest, h.size)
    size = max(1, _BATCH_BYTES // (widest * rounding.PROBES * 8))
    return [samples[first : first + size] for first in range(0, len(samples), size)]


def _roundings(layer: Layer, kind: Precision) -> int:
    """Of a weight and an output, or in evaluating an activation and of its output."""
    if kind is _FP32 or layer.op in ("reshape", "relu"):
        return 0
    return 2 if layer.op in WEIGHTED_OPS else 1 + rounding.EVALUATION_ROUNDINGS[kind]


def _underflows(errors: Mapping[Precision, float]) -> bool:
    """Whether fp16 would overflow, or underflow with an effect."""
    harmless = _FP16.unit_roundoff / _BF16.unit_roundoff
    return errors.get(_FP16, math.inf) > max(errors.get(_BF16, 0.0), harmless)


def _reason(chosen: Precision, numbers: _Numbers, errors: Mapping[Precision, float]) -> str:
    """The figures that decided."""
    within = f"|numbers| ≤ {numbers.peak:.3g}"
    if _FP16 in errors:
        headroom = _FP16.largest / max(numbers.peak, _FP16.underflow)
        digits = 0 if headroom >= 10 else 1
        within += f", headroom {headroom:,.{digits}f}×, underflow {numbers.underflow:.2%}"
    else:
        within += " overflow fp16"
    shown = [_FP16] if chosen is _FP16 else list(errors)
    said = ", ".join(f"{kind} {errors[kind]:.2g}" for kind in shown)
    return f"{within}, error in {said} of what is acceptable" if said else within
