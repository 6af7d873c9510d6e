"""ONNX Runtime: the CPU, CUDA and TensorRT providers as rows of their own."""

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

_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
_HALF_FIRST = (Precision.FP16, Precision.BF16, Precision.FP32)
_SMALLEST_FOLDED_BYTES = 1024


class _OnnxRuntime:
    slow = False
    # The CPU provider computes half-precision graphs in fp32; cuBLAS sums in fp32 with TF32 off.
    accumulation = dict.fromkeys(Precision, Precision.FP32)

    def __init__(
        self, name: str, provider: str, rank: int, provider_options: dict[str, str]
    ) -> None:
        self.name, self.rank = name, rank
        self._provider, self._provider_options = provider, provider_options
        on_cpu = provider == "CPUExecutionProvider"
        self.precisions = (Precision.FP32, Precision.FP16) if on_cpu else _HALF_FIRST

    def availability(self) -> Availability:
        found = _installed()
        extra = "cpu" if self._provider == "CPUExecutionProvider" else "gpu"
        remedy = f"pip install 'tiedexport[{extra}]'"
        if found is None:
            return Availability(False, reason="onnxruntime is not installed", remedy=remedy)
        try:
            import onnxruntime
        except ImportError as error:
            return Availability(False, found, reason=str(error), remedy=remedy)
        if self._provider not in onnxruntime.get_available_providers():
            if extra == "gpu":
                remedy = "pip uninstall onnxruntime, then " + remedy
            reason = f"this onnxruntime was built without {self._provider}"
            return Availability(False, found, reason=reason, remedy=remedy)
        if extra == "gpu":
            from tiedexport import trt

            driver = trt.driver()
            if not driver.available:
                return Availability(False, found, reason=driver.reason, remedy=driver.remedy)
        return Availability(True, found)

    def refusal(self, bundle: Bundle, precision: Precision) -> str | None:
        if precision not in self.precisions:
            return f"{self._provider} has no {precision} kernels"
        return None

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> _OnnxRuntimeBackend:
        return _OnnxRuntimeBackend(
            bundle, precision, options, (self._provider, self._provider_options)
        )


class _OnnxRuntimeBackend:
    """One ONNX Runtime session a stage, made when the stage is first used."""

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision,
        options: Options,
        provider: tuple[str, dict[str, str]],
    ) -> None:
        self._bundle, self._precision, self._provider = bundle, precision, provider
        self._options = session_options(options)
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._closed = False

    def run(self, stage: StageSpec, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if out is not None:
            self.bind(stage, x, out)()
            return out
        session = self._sessions.get(stage.name) or self._session(stage.name)
        try:
            result: np.ndarray = session.run(None, {stage.inputs[0].name: x})[0]
        except Exception as error:
            raise _failed(stage.name, error) from error
        return result

    def bind(self, stage: StageSpec, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        session = self._sessions.get(stage.name) or self._session(stage.name)
        binding = session.io_binding()
        binding.bind_cpu_input(stage.inputs[0].name, x)
        binding.bind_output(
            stage.outputs[0].name, "cpu", 0, out.dtype.type, out.shape, out.ctypes.data
        )

        def call(_kept_alive: object = (x, out)) -> None:  # the binding holds bare addresses
            try:
                session.run_with_iobinding(binding)
            except Exception as error:
                raise _failed(stage.name, error) from error

        return call

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._sessions.clear()

    def _session(self, stage: str) -> Any:
        import onnxruntime

        with self._lock:
            if self._closed:
                raise RuntimeFailedError("the session is closed", where=stage)
            if stage not in self._sessions:
                path = str(self._bundle.graph(stage, self._precision))
                try:
                    session = onnxruntime.InferenceSession(
                        path, self._options, providers=[self._provider]
                    )
                except Exception as error:
                    raise _failed(stage, error) from error
                ran_on = session.get_providers()[0]
                if ran_on != self._provider[0]:
                    raise RuntimeFailedError(
                        "ONNX Runtime fell back to another provider",
                        where=stage,
                        got=ran_on,
                        expected=self._provider[0],
                    )
                self._sessions[stage] = session
            return self._sessions[stage]


def session_options(options: Options) -> Any:
    """ONNX Runtime's session options for ours.

    Shared memory means external data mapped from the bundle and used where it lies: prepacking
    would copy every weight into a layout of its own, and folding the Transpose would store Wᵀ.
    """
    import onnxruntime

    made = onnxruntime.SessionOptions()
    made.log_severity_level = 3
    made.inter_op_num_threads = 1
    if options.threads is not None:
        made.intra_op_num_threads = options.threads
    if options.memory == "shared":
        made.add_session_config_entry("session.disable_prepacking", "1")
        made.add_session_config_entry(
            "optimization.constant_folding_max_output_size_in_bytes", str(_SMALLEST_FOLDED_BYTES)
        )
    return made


def _installed() -> str | None:
    for package in _PACKAGES:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


def _failed(stage: str, error: Exception) -> RuntimeFailedError:
    return RuntimeFailedError("ONNX Runtime failed", where=stage, got=str(error))


RUNTIMES = (
    _OnnxRuntime("onnxruntime", "CPUExecutionProvider", 40, {}),
    _OnnxRuntime("onnxruntime-cuda", "CUDAExecutionProvider", 20, {"use_tf32": "0"}),
    _OnnxRuntime("onnxruntime-tensorrt", "TensorrtExecutionProvider", 25, {}),
)
