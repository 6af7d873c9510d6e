"""What every layer of a stage should put out, and how far from it a runtime's layers are.

The bound of a layer's output allows for the roundings of all layers up to it. So the first layer
beyond its bound is the one at fault: what it was fed was still within.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from tiedexport import rounding
from tiedexport.comparison import compare
from tiedexport.errors import BundleError
from tiedexport.results import Comparison
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tiedexport.bundle import Bundle
    from tiedexport.manifest import Manifest
    from tiedexport.results import Status
    from tiedexport.spec import StageSpec


@dataclass(frozen=True)
class Expected:
    """The output of one layer.

    Attributes:
        name: the ONNX value that holds it.
        golden: float64 [n, *element_shape].
        bounded: how far a runtime may be off.
    """

    name: str
    golden: np.ndarray
    bounded: rounding.Bounded


@dataclass(frozen=True)
class Runner:
    """Who computed a stage and how, as its rows say."""

    runtime: str
    precision: Precision
    accumulation: Precision
    remark: str = ""

    def judge(self, stage: StageSpec, output: np.ndarray, expected: Expected) -> Comparison:
        """The row of one output."""
        row = compare(
            output,
            expected.golden,
            expected.bounded,
            self.runtime,
            stage.name,
            self.precision,
            self.accumulation,
        )
        return structs.replace(row, remark=self.remark)

    def judge_layers(
        self,
        stage: StageSpec,
        outputs: Mapping[str, np.ndarray],
        expected: Sequence[Expected],
    ) -> Iterator[Comparison]:
        """The rows of all layers, in order."""
        for layer in expected:
            if layer.name in outputs:
                row = self.judge(stage, outputs[layer.name], layer)
            else:
                row = self.row(stage.name, "not run", f"{layer.name} is not among its outputs")
            yield structs.replace(row, layer=layer.name)

    def row(self, stage: str, status: Status, reason: str) -> Comparison:
        """The row of what there is no output of."""
        return Comparison(self.runtime, stage, self.precision, status, reason, remark=self.remark)


def expected(
    bundle: Bundle, stage: StageSpec, precision: Precision, accumulation: Precision
) -> tuple[Expected, ...]:
    """The outputs of a stage's layers for its golden input, in order; the last is the stage's own.

    Args:
        bundle: what has the weights and golden pairs.
        stage: one of its stages.
        precision: what is computed in, but for the weights that the manifest keeps in another type.
        accumulation: what sums are kept in.

    Raises:
        BundleError: the layers do not fit the weights or the golden output.
    """
    manifest, golden = bundle.manifest, bundle.golden
    masters = Precision.FP32 if Precision.FP32 in manifest.precisions else precision
    output = stage.outputs[0].name
    try:
        bounds = rounding.layer_bounds(
            stage.layers,
            bundle.weights(masters),
            golden[stage.inputs[0].name].astype(np.float64),
            precision=precision,
            accumulation=accumulation,
            io=manifest.io_dtype,
            kept=manifest.kept.get(precision, {}),
        )
        rows = [Expected(layer.output, b.value, b) for layer, b in bounds]
        if not rows or rows[-1].golden.shape != golden[output].shape:
            raise ValueError(f"{output} of shape {list(golden[output].shape)}")
    except ValueError as error:
        raise BundleError(
            "layers that do not fit their weights",
            where=f"{bundle.path}: stage {stage.name}",
            got=str(error),
            hint="rebuild it: tiedexport build model.pt",
        ) from error
    if masters is Precision.FP32:
        # What the weights of today give is no reference: only golden values know those of then.
        rows = [replace(row, golden=_stored(bundle, row)) for row in rows]
        return (*rows[:-1], Expected(output, golden[output], rows[-1].bounded))
    largest = _recorded(manifest, stage, precision)
    return (*rows[:-1], _without_masters(output, golden[output], rows[-1].bounded, largest))


def _stored(bundle: Bundle, row: Expected) -> np.ndarray:
    """The golden values of that name, which a stage within a stage has, else those at hand."""
    stored = bundle.golden.get(row.name, row.golden)
    return stored if stored.shape == row.golden.shape else row.golden


def _without_masters(
    output: str, golden: np.ndarray, bounded: rounding.Bounded, largest: float
) -> Expected:
    """Without the fp32 weights at hand, what their rounding did shows in the golden outputs.

    In the first it is no more than the bound that the build recorded: beyond that it is a fault.
    """
    storage = np.abs(bounded.value - golden)
    storage[:1] = np.minimum(storage[:1], largest)
    return Expected(output, golden, replace(bounded, value=golden, bound=bounded.bound + storage))


def _recorded(manifest: Manifest, stage: StageSpec, precision: Precision) -> float:
    """The largest bound on the first golden output, as the manifest has it."""
    recorded = (
        row.largest_bound
        for row in manifest.tolerances
        if (row.stage, row.precision) == (stage.name, precision)
    )
    return max(recorded, default=0.0)


def strays(rows: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """Of the rows of layers, in order, the first that failed of each runner and stage."""
    first: dict[tuple[object, ...], Comparison] = {}
    for row in rows:
        if row.status == "failed" and row.layer:
            first.setdefault((row.runtime, row.remark, row.precision, row.stage), row)
    return tuple(first.values())
