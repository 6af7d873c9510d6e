"""ONNX's reference evaluator: slow, plain, and the standard's own word on every operator."""

from __future__ import annotations

import threading
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.errors import RuntimeFailedError
from tiedexport.results import Availability
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.bundle import Bundle
    from tiedexport.runtimes import Options
    from tiedexport.spec import StageSpec


class _Reference:
    name = "reference"
    rank = 90
    slow = True
    precisions = (Precision.FP32, Precision.FP16, Precision.BF16)
    # numpy and ml_dtypes sum half-precision products in float32.
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

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> _ReferenceBackend:
        return _ReferenceBackend(bundle, precision)


class _ReferenceBackend:
    def __init__(self, bundle: Bundle, precision: Precision) -> None:
        self._bundle, self._precision = bundle, precision
        self._evaluators: dict[str, Any] = {}
        # The evaluator keeps no promise about threads.
        self._lock = threading.Lock()

    def run(self, stage: StageSpec, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        with self._lock:
            try:
                result = self._evaluator(stage.name).run(None, {stage.inputs[0].name: x})[0]
            except Exception as error:
                raise RuntimeFailedError(
                    "onnx's reference evaluator failed", where=stage.name, got=str(error)
                ) from error
        result = np.asarray(result, dtype=stage.outputs[0].dtype.dtype)
        if out is None:
            return result
        np.copyto(out, result)
        return out

    def bind(self, stage: StageSpec, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        return lambda: (self.run(stage, x, out), None)[1]

    def close(self) -> None:
        self._evaluators.clear()

    def _evaluator(self, stage: str) -> Any:
        if stage not in self._evaluators:
            import onnx
            from onnx.reference import ReferenceEvaluator

            model = onnx.load(self._bundle.graph(stage, self._precision))
            self._evaluators[stage] = ReferenceEvaluator(model)
        return self._evaluators[stage]


RUNTIMES = (_Reference(),)
