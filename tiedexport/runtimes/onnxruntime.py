"""ONNX Runtime: the CPU, CUDA and TensorRT providers as rows of their own."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport import trt
from tiedexport.environment import installed_version
from tiedexport.errors import MissingRuntimeError, RuntimeFailedError
from tiedexport.protobuf import with_outputs
from tiedexport.results import Availability
from tiedexport.runtimes import Options, Runtime
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.bundle import Bundle
    from tiedexport.spec import StageSpec

_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
_CPU, _TENSORRT = "CPUExecutionProvider", "TensorrtExecutionProvider"
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
_SMALLEST_FOLDED_BYTES = 1024

RELU_MODEL = (
    b'\x08\x08:9\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x05probe'
    b"Z\x10\n\x01x\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01n"
    b"b\x10\n\x01y\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01nB\x04\n\x00\x10\r"
)
"""y = relu(x) over a float32 vector of any length, in ONNX IR version 8 and opset 13."""


class _OnnxRuntime(Runtime):
    """A provider: `options` are its own for each precision, best first."""

    packs = True

    def __init__(
        self,
        name: str,
        provider: str,
        rank: int,
        options: dict[Precision, dict[str, str]],
        accumulation: dict[Precision, Precision],
    ) -> None:
        self.name, self.rank, self.accumulation = name, rank, accumulation
        self.on_gpu = provider != _CPU
        self.provider, self.options = provider, options
        self.precisions = tuple(options)

    def availability(self) -> Availability:
        found = next(filter(None, map(installed_version, _PACKAGES)), None)
        extra = "cpu" if self.provider == _CPU else "gpu"
        remedy = f"pip install 'tiedexport[{extra}]'"
        if found is None:
            return Availability(False, reason="onnxruntime is not installed", remedy=remedy)
        if extra == "gpu" and not (driver := trt.driver()).available:
            # Known without importing it: `auto` may be on its way to a lighter runtime.
            remedy = f"on a machine with an NVIDIA GPU and its driver: {remedy}"
            return Availability(False, found, reason=driver.reason, remedy=remedy)
        try:
            import onnxruntime
        except ImportError as error:
            return Availability(False, found, reason=str(error), remedy=remedy)
        if self.provider not in onnxruntime.get_available_providers():
            if extra == "gpu":
                remedy = "pip uninstall onnxruntime, then " + remedy
            reason = f"this onnxruntime was built without {self.provider}"
            return Availability(False, found, reason=reason, remedy=remedy)
        if extra == "gpu" and (trouble := _trouble(self.provider)):
            return Availability(False, found, *_explained(trouble))
        return Availability(True, found)

    def refusal(self, bundle: Bundle, precision: Precision) -> str | None:
        if precision not in self.precisions:
            return f"{self.provider} has no {precision} kernels"
        tf32_off = os.environ.get("NVIDIA_TF32_OVERRIDE") == "0"
        if self.provider == _TENSORRT and precision is Precision.FP32 and not tf32_off:
            # It has no option for this, and a variable set by us would reach the whole process.
            return f"{_TENSORRT} computes fp32 in TF32: start with NVIDIA_TF32_OVERRIDE=0"
        return None

    def hidden_copies(self, bundle: Bundle, precision: Precision) -> str | None:
        if self.provider == _CPU and precision is not Precision.FP32:
            return f"{_CPU} casts {precision} weights to fp32 in every stage and keeps both"
        return None

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> _OnnxRuntimeBackend:
        return _OnnxRuntimeBackend(bundle, precision, options, self._started(precision))

    def _started(self, precision: Precision) -> tuple[str, dict[str, str]]:
        """The provider, which was seen to start, and its options."""
        if self.provider != _CPU and (trouble := _trouble(self.provider)):
            reason, remedy = _explained(trouble)
            raise MissingRuntimeError(f"{self.name} cannot run", got=reason, hint=remedy)
        return self.provider, self.options[precision]

    def layers(
        self, bundle: Bundle, precision: Precision, stage: StageSpec, x: np.ndarray
    ) -> dict[str, np.ndarray] | str:
        """As the protocol says; a value that is asked for is not fused away as it might be."""
        if Precision.BF16 in {precision, *bundle.manifest.kept.get(precision, {}).values()}:
            return "ONNX Runtime hands out no bf16 values"
        graph = bundle.graph(stage.name, precision)
        options = session_options(Options())
        options.add_session_config_entry(_DATA_FOLDER, str(graph.parent))
        names = [layer.output for layer in stage.layers]
        model = with_outputs(graph.read_bytes(), set(names) - {stage.outputs[0].name})
        session = inference_session(model, options, self._started(precision), stage.name)
        try:
            return dict(zip(names, session.run(names, {stage.inputs[0].name: x}), strict=True))
        except Exception as error:
            raise _failed(stage.name, error) from error


class _OnnxRuntimeBackend:
    """One ONNX Runtime session a stage, made when the stage is first used; the first at once."""

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
        self._session(bundle.manifest.stages[0].name)

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
        binding, name = session.io_binding(), stage.inputs[0].name
        copies_input = self._provider[0] != _CPU
        binding.bind_cpu_input(name, x)
        binding.bind_output(
            stage.outputs[0].name, "cpu", 0, out.dtype.type, out.shape, out.ctypes.data
        )

        def call(_kept_alive: object = (x, out)) -> None:  # the binding holds bare addresses
            try:
                if copies_input:  # to the device, once a binding
                    binding.bind_cpu_input(name, x)
                session.run_with_iobinding(binding)
            except Exception as error:
                raise _failed(stage.name, error) from error

        return call

    def close(self) -> None:
        self._sessions.clear()

    def _session(self, stage: str) -> Any:
        with self._lock:
            if stage not in self._sessions:
                path = str(self._bundle.graph(stage, self._precision))
                self._sessions[stage] = inference_session(
                    path, self._options, self._provider, stage
                )
            return self._sessions[stage]


def inference_session(
    model: str | bytes, options: Any, provider: tuple[str, dict[str, str]], where: str
) -> Any:
    """An ONNX Runtime session on one provider, and on no other in its place."""
    import onnxruntime

    if provider[0] != _CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=[provider], enable_fallback=0
        )
    except Exception as error:
        raise _failed(where, error) from error
    ran_on = session.get_providers()[0]
    if ran_on != provider[0]:
        raise RuntimeFailedError(
            "ONNX Runtime fell back to another provider",
            where=where,
            got=ran_on,
            expected=provider[0],
        )
    return session


@trt.once
def _trouble(provider: str) -> str:
    """Why a GPU provider that the package lists does not start, as a tiny model shows; or ""."""
    import onnxruntime

    if provider == _TENSORRT:  # its libraries are then found by their names
        with contextlib.suppress(MissingRuntimeError):
            trt.load("tensorrt")
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()
    try:
        inference_session(RELU_MODEL, session_options(Options()), (provider, {}), provider)
    except RuntimeFailedError as error:
        return _loading_error(provider) or f"{error.what}: {error.got}"
    return ""


def _loading_error(provider: str) -> str:
    """The loader's words on a provider's library, which ONNX Runtime only logs; or "".

    Only for after its own attempt: a library loaded before that would lack its host.
    """
    import onnxruntime

    name = provider.removesuffix("ExecutionProvider").lower()
    library = Path(onnxruntime.__file__).parent / f"capi/libonnxruntime_providers_{name}.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return ""


def _explained(trouble: str) -> tuple[str, str]:
    """Reason and remedy."""
    wanted = re.search(r"libnvinfer\.so\.(\d+)", trouble)
    if wanted is None:
        return trouble, "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    here = installed_version("tensorrt") or "not installed"
    return f"{trouble} (the package tensorrt is {here})", f"pip install 'tensorrt=={wanted[1]}.*'"


def session_options(options: Options) -> Any:
    """ONNX Runtime's session options for ours.

    Shared memory means external data mapped from the bundle and used where it lies: prepacking
    would copy every weight into a layout of its own, folding the Transpose would store Wᵀ, and
    the optimiser's last level stores a convolution's kernel again in blocks of channels.
    """
    import onnxruntime

    made = onnxruntime.SessionOptions()
    made.log_severity_level = 3
    made.inter_op_num_threads = 1
    if options.threads is not None:
        made.intra_op_num_threads = options.threads
    if options.memory == "shared":
        made.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        made.add_session_config_entry("session.disable_prepacking", "1")
        made.add_session_config_entry(
            "optimization.constant_folding_max_output_size_in_bytes", str(_SMALLEST_FOLDED_BYTES)
        )
    return made


def _failed(stage: str, error: Exception) -> RuntimeFailedError:
    return RuntimeFailedError("ONNX Runtime failed", where=stage, got=str(error))


_FP16, _BF16, _FP32 = Precision.FP16, Precision.BF16, Precision.FP32
# The CPU provider computes half-precision graphs in fp32; cuBLAS sums in fp32 with TF32 off.
_IN_FP32 = dict.fromkeys(Precision, _FP32)
# TensorRT promises no wider sums than the type of the product.
_AS_STORED = {precision: precision for precision in Precision}
_CUDA_OPTIONS = {precision: {"use_tf32": "0"} for precision in (_FP16, _BF16, _FP32)}
_TENSORRT_OPTIONS = {
    _FP16: {"trt_fp16_enable": "1"},
    _BF16: {"trt_bf16_enable": "1"},
    _FP32: dict[str, str](),
}

RUNTIMES = (
    _OnnxRuntime("onnxruntime", _CPU, 40, {_FP32: {}, _FP16: {}}, _IN_FP32),
    _OnnxRuntime("onnxruntime-cuda", "CUDAExecutionProvider", 20, _CUDA_OPTIONS, _IN_FP32),
    _OnnxRuntime("onnxruntime-tensorrt", _TENSORRT, 25, _TENSORRT_OPTIONS, _AS_STORED),
)
