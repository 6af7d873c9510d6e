"""ONNX's reference evaluator: slow and plain, in float32 the standard's own word on every operator.

In half precision Gemm, Conv and ConvTranspose are ours: computed in float32 by the evaluator and
rounded once. As it comes, it also rounds between its steps, and does not stay within the bound.
"""

from __future__ import annotations

import threading
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.errors import RuntimeFailedError
from tiedexport.results import Availability
from tiedexport.runtimes import Runtime, bind_by_running
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.runtimes import Options
    from tiedexport.spec import StageSpec


class _Reference(Runtime):
    name = "reference"
    rank = 90
    slow = True
    precisions = (Precision.FP32, Precision.FP16, Precision.BF16)
    # `_widened` sees to that.
    accumulation = dict.fromkeys(Precision, Precision.FP32)

    def availability(self) -> Availability:
        try:
            return Availability(True, version("onnx"))
        except PackageNotFoundError:
            return Availability(
                False,
                reason="the package onnx is not installed",
                remedy="pip install 'tiedexport[train]'",
            )

    def refusal(self, bundle: Bundle, precision: Precision) -> str | None:
        return None

    def hidden_copies(self, bundle: Bundle, precision: Precision) -> str | None:
        if precision is Precision.FP32:
            return None
        return f"{precision} weights are widened to fp32 for every call"

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> _ReferenceBackend:
        return _ReferenceBackend(bundle, precision)

    def layers(
        self, bundle: Bundle, precision: Precision, stage: StageSpec, x: np.ndarray
    ) -> dict[str, np.ndarray] | str:
        names = [layer.output for layer in stage.layers]
        values = _ReferenceBackend(bundle, precision).values(stage, x, names)
        return dict(zip(names, values, strict=True))


class _ReferenceBackend:
    def __init__(self, bundle: Bundle, precision: Precision) -> None:
        self._bundle, self._precision = bundle, precision
        self._evaluators: dict[str, Any] = {}
        # The evaluator keeps no promise about threads.
        self._lock = threading.Lock()

    def run(self, stage: StageSpec, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        (result,) = self.values(stage, x, [stage.outputs[0].name])
        result = np.ascontiguousarray(result, dtype=stage.outputs[0].dtype.dtype)
        if out is None:
            return result
        np.copyto(out, result)
        return out

    def values(self, stage: StageSpec, x: np.ndarray, names: list[str]) -> list[np.ndarray]:
        """The values of those names in the graph of a stage."""
        with self._lock:
            try:
                evaluator = self._evaluator(stage.name)
                found: list[np.ndarray] = evaluator.run(names, {stage.inputs[0].name: x})
            except Exception as error:
                raise RuntimeFailedError(
                    "onnx's reference evaluator failed", where=stage.name, got=str(error)
                ) from error
        return found

    def bind(self, stage: StageSpec, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        return bind_by_running(self, stage, x, out)

    def close(self) -> None:
        self._evaluators.clear()

    def _evaluator(self, stage: str) -> Any:
        if stage not in self._evaluators:
            import onnx

            path = self._bundle.graph(stage, self._precision)
            model = onnx.load(path, load_external_data=False)
            weights = self._bundle.weights_path(self._precision)
            self._evaluators[stage] = _on_mapped_weights(model, weights)
        return self._evaluators[stage]


def _on_mapped_weights(model: Any, weights: Path) -> Any:
    """An evaluator whose external data stays in the file that the graph points into."""
    from onnx.external_data_helper import ExternalDataInfo
    from onnx.helper import tensor_dtype_to_np_dtype
    from onnx.reference import ReferenceEvaluator

    files = {weights.name: np.memmap(weights, np.uint8, mode="r")}

    class OnMappedWeights(ReferenceEvaluator):
        def retrieve_external_data(self, tensor: Any) -> np.ndarray:
            place: Any = ExternalDataInfo(tensor)
            stored = files[place.location][place.offset : place.offset + place.length]
            dtype = tensor_dtype_to_np_dtype(tensor.data_type)
            return stored.view(dtype).reshape(tuple(tensor.dims))

    widened = [_widened(op) for op in ("Gemm", "Conv", "ConvTranspose")]
    return OnMappedWeights(model, new_ops=widened)


def _widened(name: str) -> type:
    """An operator of the evaluator that computes in float32 and rounds its result once.

    As it comes, it rounds a half-precision product before it adds the bias, and a convolution
    after every step: less exact than any kernel in use.
    """
    from onnx.reference.ops import load_op

    original: type = load_op("", name)

    def run(self: Any, *tensors: np.ndarray, **attributes: Any) -> tuple[np.ndarray, ...]:
        wide = [tensor.astype(np.float32, copy=False) for tensor in tensors]
        (result,) = original._run(self, *wide, **attributes)  # type: ignore[attr-defined]
        return (result.astype(tensors[0].dtype, copy=False),)

    return type(name, (original,), {"op_domain": "", "_run": run})


RUNTIMES = (_Reference(),)
